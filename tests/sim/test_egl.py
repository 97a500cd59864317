"""EGL and CUDA number GPUs each in its own way: robosuite takes the one for the other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import diagnose
from tests.sim.conftest import TASK

pytestmark = [pytest.mark.sim, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
ROBOSUITE = """
import robosuite
robosuite.make("Lift", robots="Panda", has_renderer=False, use_camera_obs=True)
"""
OURS = f"""
from launcher.core.errors import RdtlError
from rdt.sim.libero import Simulator
try:
    Simulator({ {**TASK, "camera_size": 64} }, blind=False).close()
except RdtlError as error:
    print(error)
"""


def drawn(code: str, **gpu: str) -> str:
    """All that a process says which draws by EGL."""
    own = {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl", "PYTHONPATH": str(ROOT), **gpu}
    kept = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES",)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **own},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def egl() -> None:
    """One device, Mesa's or a GPU's, with which everything is well."""
    said = drawn(OURS)
    if "RDTL-E011" in said:
        pytest.skip(f"no EGL here: {said[-200:]}")
    assert said == ""


def test_robosuite_says_it_by_a_missing_attribute(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(drawn(ROBOSUITE, CUDA_VISIBLE_DEVICES="99"))
    assert "has no attribute 'con'" in log.read_text()
    assert "RDTL-E012" in {found.code for found in diagnose.diagnose(log)}


@pytest.mark.parametrize("more", [{}, {"MUJOCO_EGL_DEVICE_ID": "0"}])
def test_we_say_which_number_it_was(more: dict[str, str]) -> None:
    said = drawn(OURS, CUDA_VISIBLE_DEVICES="99", **more)
    assert said.startswith("error RDTL-E012") and "CUDA_VISIBLE_DEVICES=99" in said
    assert "gl_ctx" not in said  # nor does what was never made complain when it is freed
