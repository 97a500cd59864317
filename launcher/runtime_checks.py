"""Preflight: what containers can do on a site's nodes, which way rdtl takes there, and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from launcher.core.checks import Finding, NothingToLookAtError
from launcher.core.node_facts import NodeFacts, probe
from launcher.images import builder as builders
from launcher.sites import Site, require_scheduler
from launcher.submit.slurm import clean_environment

HOW_TO_GET = (
    "a package (apt-get or dnf install apptainer), a module (module load apptainer), or without "
    "root: sh containers/install-apptainer.sh ~/apptainer"
)


def containers(site: Site, runs_dir: Path) -> list[Finding]:
    """Ask a node of the site (a compute node on a cluster) and judge its answer."""
    if site.kind == "hosts":
        raise NothingToLookAtError("no container is started on a list of hosts")
    facts = node_facts(site)
    if facts is None:
        return [
            Finding(
                "RDTL-C001",
                "warning",
                "no compute node answered, so its container runtime is unknown",
                why="login and compute nodes often differ",
                fix="run rdtl doctor again when a node is free",
            )
        ]
    return advise(facts, site.runtime)


def node_facts(site: Site) -> NodeFacts | None:
    """Facts of one node of the site; None when the scheduler gave none within 30 s."""
    docker = builders.load(None).docker
    if site.kind == "local":
        return probe(site.apptainer, docker)
    require_scheduler("slurm")
    partition = [f"--partition={site.partition}"] if site.partition else []
    account = [f"--account={site.account}"] if site.account else []
    where = {"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONSAFEPATH": "1"}
    command = ["srun", *partition, *account, "--nodes=1", "--ntasks=1", "--immediate=20"]
    command += ["--time=2", "--chdir=/", "--input=none", sys.executable]
    try:
        done = subprocess.run(
            [*command, "-m", "launcher.core.node_facts", site.apptainer, docker],
            env={**clean_environment(os.environ, site.environment), **where},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        return NodeFacts(**json.loads(done.stdout.splitlines()[-1]))
    except (subprocess.TimeoutExpired, IndexError, json.JSONDecodeError):
        return None


def advise(facts: NodeFacts, wanted: str) -> list[Finding]:
    """Findings about a node; pure. ``wanted`` is the runtime that the site names."""
    if facts.apptainer is None:
        return [_no_apptainer(facts, wanted)]
    if not facts.setuid and not facts.root and not facts.user_namespaces:
        return [
            Finding(
                "RDTL-C001",
                "error" if wanted == "apptainer" else "warning",
                "Apptainer cannot start: no user namespaces, and it is not installed setuid",
                where="/proc/sys/user/max_user_namespaces",
                fix="ask the administrator for one of the two; until then --runtime none",
            )
        ]
    return [_apptainer(facts), *_build(facts)]


def _no_apptainer(facts: NodeFacts, wanted: str) -> Finding:
    others = [name for name in ("docker", "pyxis") if getattr(facts, name)]
    have = f"; {' and '.join(others)} can be had" if others else ""
    missing = wanted == "apptainer" or (wanted == "docker" and not facts.docker)
    return Finding(
        "RDTL-C001",
        "error" if missing else "info",
        f"no Apptainer on this node{have}",
        why="images run unprivileged on clusters by Apptainer" if not others else "",
        fix=HOW_TO_GET,
    )


def _apptainer(facts: NodeFacts) -> Finding:
    where = facts.apptainer or ""
    if facts.root and not facts.can_raise_limits:
        text = "as root without CAP_SYS_RESOURCE: --no-privs, the kernel mounts the image"
        return Finding("RDTL-C016", "ok", f"apptainer runs images {text}", where)
    if facts.root or facts.setuid:
        return Finding("RDTL-C017", "ok", "apptainer mounts images by the kernel", where)
    if facts.fuse:
        return Finding("RDTL-C017", "ok", "apptainer mounts images by FUSE", where)
    return Finding(
        "RDTL-C017",
        "warning",
        "apptainer can only unpack images (--unsquash) at every start here",
        where="/dev/fuse cannot be opened by this user",
        why="that takes seconds to minutes for each task, and room for the unpacked image",
        fix="ask for chmod 666 /dev/fuse, or for an Apptainer that is installed setuid",
    )


def _build(facts: NodeFacts) -> list[Finding]:
    if facts.subuid:
        return [Finding("RDTL-C018", "ok", "subordinate user ids: images can be built here")]
    if facts.root:
        return [
            Finding(
                "RDTL-C018",
                "warning",
                "root has no subordinate user ids, so --fakeroot builds fail here",
                where="/etc/subuid",
                fix="add the line root:400000:65536 to /etc/subuid and /etc/subgid",
            )
        ]
    text = "no subordinate user ids: images are built in a root-mapped namespace"
    return [Finding("RDTL-C018", "info", text, "/etc/subuid")]
