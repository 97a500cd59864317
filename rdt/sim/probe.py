"""Two quick looks at the simulator that catch what a version number may hide.

MuJoCo 3.3.3 began to draw the floor darker, 3.4.0 to let a bowl slide off its
ramekin; both changed published success rates. The numbers below are those of the
version the published evaluations used.
"""

from __future__ import annotations

import numpy as np

from launcher.core.checks import Finding
from rdt.sim.libero import Simulator

TASK = {
    "wide_mm": 0,
    "camera_size": 256,
    "settle_steps": 10,
    "max_steps": 1,
    "env_seed": 7,
}
FLOOR_RGB = (184.9, 176.1, 167.6)  # libero_object 0, rows 200-255 of the picture turned by 180°
FLOOR_TOLERANCE = 3.0
BOWL, RAMEKIN = "akita_black_bowl_1", "glazed_rim_porcelain_ramekin_1"
SLIDE_LIMIT_M = 0.020  # 14.5 mm where the bowl stays, 37 mm and more where it slides
REMEDY = "install the simulator's pinned versions: pip install 'rdt-launcher[sim]'"


def probe() -> list[Finding]:
    """Golden frame (RDTL-E001) and settled scene (RDTL-E002); some ten CPU seconds.

    Raises RdtlError RDTL-E011 or RDTL-E028, RefusedError RDTL-E001/E003.
    """
    return [_floor(), _bowl()]


def floor_colour(simulator: Simulator) -> tuple[float, float, float]:
    """Mean red, green, blue of the bottom strip of the agent's view at 256 pixels."""
    picture = simulator.observation().pictures["agentview"][::-1, ::-1]
    red, green, blue = picture[200:256].reshape(-1, 3).mean(axis=0)
    return float(red), float(green), float(blue)


def _floor() -> Finding:
    task = {**TASK, "suite": "libero_object", "task_id": 0}
    simulator = Simulator(task, blind=False, cameras=("agentview",))
    simulator.reset(0)
    found = floor_colour(simulator)
    simulator.close()
    text = f"floor {found[0]:.1f}/{found[1]:.1f}/{found[2]:.1f}"
    if np.abs(np.subtract(found, FLOOR_RGB)).max() <= FLOOR_TOLERANCE:
        return Finding("RDTL-E001", "ok", f"{text}: drawn as in published evaluations")
    return Finding(
        "RDTL-E001",
        "error",
        f"{text}, expected {'/'.join(map(str, FLOOR_RGB))} within {FLOOR_TOLERANCE}",
        where="libero_object task 0, initial state 0",
        why="a policy trained on published data sees a floor that it does not know",
        fix=REMEDY,
    )


def _bowl() -> Finding:
    task = {**TASK, "suite": "libero_spatial", "task_id": 5}
    simulator = Simulator(task, blind=True)
    simulator.reset(0)
    inner, data = simulator.env.env, simulator.env.sim.data
    bowl, ramekin = (data.body_xpos[inner.obj_body_id[name]] for name in (BOWL, RAMEKIN))
    offset = float(np.linalg.norm(bowl[:2] - ramekin[:2]))
    simulator.close()
    text = f"bowl settles {1000 * offset:.1f} mm beside the ramekin's centre"
    if offset < SLIDE_LIMIT_M:
        return Finding("RDTL-E002", "ok", f"{text}: it stays on top")
    return Finding(
        "RDTL-E002",
        "error",
        f"{text}: it slid off",
        where="libero_spatial task 5, initial state 0",
        why="the scene is not the one that demonstrations and published rates come from",
        fix=REMEDY,
    )
