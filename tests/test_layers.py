"""Imports point downwards only, and light things stay light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STANDARD = set(sys.stdlib_module_names)


def imported(path: Path) -> set[str]:
    """Absolute module names that a file imports, wherever the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def offenders(package: str, allowed) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files_of(package)
        for name in sorted(imported(path))
        if not allowed(name)
    ]


def ours(name: str) -> bool:
    return name.split(".")[0] in ("launcher", "jobs", "rdt")


def test_jobs_and_rdt_use_of_the_launcher_only_its_core() -> None:
    def allowed(name: str) -> bool:
        return not name.startswith("launcher.") or name.startswith("launcher.core")

    assert offenders("rdt", allowed) == []
    assert offenders("jobs", allowed) == []
    assert offenders("rdt", lambda name: name.split(".")[0] != "jobs") == []


def test_launcher_uses_of_rdt_only_its_spec_and_of_jobs_only_the_node_task() -> None:
    def allowed(name: str) -> bool:
        if name.split(".")[0] == "rdt":
            return name.startswith("rdt.spec")
        if name.split(".")[0] == "jobs":
            return name.startswith(("jobs.node", "jobs.place", "jobs.host_"))
        return True

    assert offenders("launcher", allowed) == []


def test_core_and_spec_are_standard_library_only() -> None:
    def core(name: str) -> bool:
        return name.split(".")[0] in STANDARD or name.startswith("launcher.core")

    def spec(name: str) -> bool:
        return core(name) or name.startswith("rdt.spec")

    assert offenders("launcher/core", core) == []
    assert offenders("rdt/spec", spec) == []


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after ``code``."""
    code += "; import sys, json; print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_imports_nothing_heavy() -> None:
    found = modules_after("import launcher.cli.app")
    assert found & {"torch", "deepspeed", "mujoco", "submitit", "pydantic", "yaml", "rich"} == set()


@pytest.mark.parametrize(
    "module",
    [
        "launcher.presets",
        "launcher.submit.slurm",
        "launcher.submit.local_backend",
        "launcher.submit.hosts",
        "launcher.create",
        "launcher.report",
        "launcher.summary",
        "launcher.registry",
        "launcher.checks",
        "launcher.simulator_checks",
    ],
)
def test_launcher_modules_import_no_science(module: str) -> None:
    found = modules_after(f"import {module}")
    assert found & {"torch", "deepspeed", "mujoco", "h5py", "libero", "matplotlib"} == set()


def test_a_local_task_imports_the_standard_library_only() -> None:
    found = modules_after("import launcher.core.local_task, jobs.node")
    assert found & {"submitit", "cloudpickle", "pydantic", "yaml", "typer"} == set()
