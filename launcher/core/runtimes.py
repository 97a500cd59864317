"""Container runtimes: pure functions that wrap an argv.

A runtime turns (container, argv, environment) into what is really started on a
node. Values of the environment never stand in an argv, where every user of the
machine could read them: Apptainer takes them as ``APPTAINERENV_*`` with
``--no-eval`` (without it a shell would execute them), Docker as ``-e NAME``,
Pyxis from the environment of ``srun``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from launcher.core.node_facts import MountFacts

IMAGE_PYTHON = "/opt/venv/bin/python"
HOME_INSIDE = "/home/rdtl"

# What a job may see of its surroundings. Everything else of the caller stays outside: an
# inherited PYTHONPATH, LD_PRELOAD or SLURM_ARRAY_TASK_ID has changed results before.
PASSED = (
    "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "TZ", "TERM", "OMP_NUM_THREADS",
    "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_NODELIST", "SLURM_NODEID", "SLURM_NNODES",
    "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_CPUS_PER_TASK", "SLURM_MEM_PER_NODE",
)  # fmt: skip
PASSED_PREFIXES = ("RDTL_", "NCCL_", "GLOO_", "UCX_", "FI_", "PET_")
NEVER_PASSED = ("PATH", "HOME", "LD_LIBRARY_PATH", "LD_PRELOAD", "PWD", "TMPDIR")


@dataclass(frozen=True)
class Bind:
    """A file or directory of the node that the job sees as ``target`` (absolute paths)."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Container:
    """What a stage runs in; part of the plan.

    ``image`` is the absolute path of a SIF, a Docker image id, or what Pyxis
    takes. ``sha256`` identifies it; ``size_bytes`` and ``mtime_ns`` of a SIF let
    a node see cheaply that it is still that file. ``versions`` are the main
    packages as ``name=version,…``. ``options`` go to Apptainer as
    they are (a site's choice); ``passed`` names further variables to let in.
    """

    runtime: Literal["apptainer", "docker", "pyxis"]
    image: str
    name: str
    sha256: str
    lock_sha256: str
    architecture: str
    size_bytes: int = 0
    mtime_ns: int = 0
    versions: str = ""
    program: str = "apptainer"
    options: tuple[str, ...] = ()
    engine: str | None = None
    gpu: bool = False
    binds: tuple[Bind, ...] = ()
    passed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Launch:
    """What to start: argv, and the whole environment of that process."""

    argv: tuple[str, ...]
    environment: dict[str, str]


def container_from_dict(data: dict[str, Any]) -> Container:
    """Rebuild a container from the JSON of a plan."""
    values = dict(data)
    values["binds"] = tuple(Bind(**bind) for bind in data["binds"])
    for key in ("options", "passed"):
        values[key] = tuple(data[key])
    return Container(**values)


def inside(
    outer: Mapping[str, str], own: Mapping[str, str], more: tuple[str, ...] = ()
) -> dict[str, str]:
    """Environment of a job in a container: its own variables and the passed ones of ``outer``."""
    passed = {
        name: value
        for name, value in outer.items()
        if name in PASSED or name in more or name.startswith(PASSED_PREFIXES)
    }
    return {k: v for k, v in {**passed, **own}.items() if k not in NEVER_PASSED}


def wrap(
    container: Container,
    argv: tuple[str, ...],
    variables: Mapping[str, str],
    outer: Mapping[str, str],
    facts: MountFacts,
    *,
    working_directory: str,
    scratch: str,
    tag: str,
    interactive: bool = False,
) -> Launch:
    """What a node starts so that ``argv`` runs in ``container`` with ``variables``.

    ``outer`` is the environment of the caller, ``scratch`` an empty private
    directory of the node (home and /tmp inside), ``tag`` names this process
    among those of its run. Signals sent to the started process reach the
    program, whose exit code comes back.
    """
    if container.runtime == "docker":
        return _docker(container, argv, variables, outer, working_directory, tag, interactive)
    if container.runtime == "pyxis":
        return _pyxis(container, argv, variables, outer, working_directory)
    return _apptainer(container, argv, variables, outer, facts, working_directory, scratch)


def activated(argv: tuple[str, ...], activate: str) -> tuple[str, ...]:
    """``argv`` after the shell lines ``activate``; the shell becomes the program (exec)."""
    if not activate:
        return argv
    return ("bash", "-ec", f'{activate}\nexec "$@"', "rdtl", *argv)


def patient(argv: tuple[str, ...]) -> tuple[str, ...]:
    """``argv`` that ignores SIGUSR2 until the program has a handler for it.

    Importing torch takes seconds; by default the signal would end the process meanwhile.
    """
    return ("sh", "-c", 'trap "" USR2; exec "$@"', "rdtl", *argv)


def mount_options(facts: MountFacts) -> tuple[str, ...]:
    """How Apptainer can open an image here, when its default way cannot work."""
    if facts.root and not facts.can_raise_limits:
        return ("--no-privs",)  # by default root asks for every capability, and that is refused
    if not facts.root and not facts.fuse and not facts.setuid:
        return ("--unsquash",)  # unpacks the whole image at every start: slow, but it works
    return ()


def mount(bind: Bind) -> str:
    """One ``--mount`` value; CSV quoting carries commas and colons, which ``--bind`` cannot."""
    parts = ["type=bind", _quoted(f"src={bind.source}"), _quoted(f"dst={bind.target}")]
    return ",".join([*parts, *(["ro"] if bind.read_only else [])])


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if any(c in field for c in ',"\n') else field


def _apptainer(
    container: Container,
    argv: tuple[str, ...],
    variables: Mapping[str, str],
    outer: Mapping[str, str],
    facts: MountFacts,
    working_directory: str,
    scratch: str,
) -> Launch:
    options = ["-q", "exec", "--cleanenv", "--no-eval", "--pid", "--no-mount", "tmp,cwd"]
    options += [*(container.options or mount_options(facts)), *(["--nv"] if container.gpu else [])]
    options += ["--home", f"{scratch}/home:{HOME_INSIDE}", "--pwd", working_directory]
    for bind in (Bind(f"{scratch}/tmp", "/tmp", read_only=False), *container.binds):
        options += ["--mount", mount(bind)]
    # The user's own APPTAINER_BIND and friends would be read as options.
    kept = {k: v for k, v in outer.items() if not k.startswith(("APPTAINER", "SINGULARITY"))}
    values = {f"APPTAINERENV_{name}": value for name, value in variables.items()}
    return Launch((container.program, *options, container.image, *argv), {**kept, **values})


def _docker(
    container: Container,
    argv: tuple[str, ...],
    variables: Mapping[str, str],
    outer: Mapping[str, str],
    working_directory: str,
    tag: str,
    interactive: bool,
) -> Launch:
    options = ["run", "--rm", "--init", "--read-only", "--network", "host", "--ipc", "host"]
    options += ["--name", tag, "--user", f"{os.getuid()}:{os.getgid()}"]
    options += ["--workdir", working_directory, "--tmpfs", "/tmp:exec,mode=1777"]
    options += ["--tmpfs", f"{HOME_INSIDE}:exec,mode=1777"]
    options += ["-it"] if interactive else []
    options += ["--gpus", "all"] if container.gpu else []
    for bind in container.binds:
        options += ["--mount", mount(bind)]
    for name in sorted({**variables, "HOME": ""}):
        options += ["-e", name if name in variables else f"{name}={HOME_INSIDE}"]
    kept = {**outer, **variables}
    if container.engine:
        kept["DOCKER_HOST"] = container.engine
    # An image of the user may have an entry point of its own; the plan's argv is what runs.
    command = ("--entrypoint", argv[0], container.image, *argv[1:])
    return Launch((container.program, *options, *command), kept)


def _pyxis(
    container: Container,
    argv: tuple[str, ...],
    variables: Mapping[str, str],
    outer: Mapping[str, str],
    working_directory: str,
) -> Launch:
    # On the srun line, never on sbatch's: that would run the batch script itself in the image,
    # where there is no srun.
    binds = ",".join(
        f"{bind.source}:{bind.target}{':ro' if bind.read_only else ''}" for bind in container.binds
    )
    names = ",".join(sorted(variables))
    options = ["--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={outer['SLURMD_NODENAME']}"]
    options += [f"--container-image={container.image}", f"--container-mounts={binds}"]
    options += [f"--container-workdir={working_directory}", "--no-container-mount-home"]
    options += [f"--container-env={names}"] if names else []
    options += ["--export=ALL"]
    return Launch(("srun", *options, *argv), {**outer, **variables})
