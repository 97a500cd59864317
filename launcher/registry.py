"""The checks that ``rdtl doctor`` runs. Listing them imports none of them."""

from __future__ import annotations

from pathlib import Path

from launcher import heavy
from launcher.core.checks import CheckSpec, Finding
from launcher.core.errors import RdtlError
from launcher.sites import Site

CHECKS = (
    CheckSpec(
        "versions",
        "launcher.checks.versions",
        ("RDTL-E003", "RDTL-C011"),
        "installed packages against the versions that were tested",
    ),
    CheckSpec(
        "rendering",
        "launcher.checks.rendering",
        ("RDTL-E011",),
        "headless rendering libraries (OSMesa)",
    ),
    CheckSpec(
        "disk",
        "launcher.checks.disk",
        ("RDTL-G005", "RDTL-G009"),
        "the runs directory: writable, and room for a run",
    ),
    CheckSpec(
        "locks",
        "launcher.checks.extension_locks",
        ("RDTL-T026",),
        "stale locks of torch extensions, for which every later process waits for ever",
    ),
    CheckSpec(
        "environment",
        "launcher.checks.inherited_environment",
        ("RDTL-S001",),
        "scheduler variables inherited from an enclosing job",
    ),
    CheckSpec(
        "memory",
        "launcher.checks.memory",
        ("RDTL-E025",),
        "memory for one simulator (3.2 GB)",
    ),
    CheckSpec(
        "scheduler",
        "launcher.checks.scheduler",
        ("RDTL-S032",),
        "the site's scheduler answers",
    ),
    CheckSpec(
        "cluster",
        "launcher.submit.checks.cluster",
        ("RDTL-S002", "RDTL-S021"),
        "what the cluster tells: version, limits, sizes of nodes, against the site file",
    ),
    CheckSpec(
        "hosts",
        "launcher.submit.host_checks.hosts",
        (
            "RDTL-B013",
            "RDTL-S050",
            "RDTL-S051",
            "RDTL-S052",
            "RDTL-S053",
            "RDTL-S054",
            "RDTL-S055",
            "RDTL-T028",
            "RDTL-T029",
        ),
        "hosts of a list: ssh without a question, shared directory, versions, GPUs, network",
    ),
    CheckSpec(
        "containers",
        "launcher.runtime_checks.containers",
        ("RDTL-C001", "RDTL-C016", "RDTL-C017", "RDTL-C018"),
        "what containers can do on a node of the site, and how to get Apptainer",
    ),
    CheckSpec(
        "images",
        "launcher.images.lock_checks.images",
        ("RDTL-C005", "RDTL-C006", "RDTL-C011", "RDTL-C012", "RDTL-C013", "RDTL-C014"),
        "versions in the locks of the images",
    ),
    CheckSpec(
        "simulator",
        "jobs.check.simulator",
        ("RDTL-E001", "RDTL-E002"),
        "a golden frame and a settled scene of the real simulator",
        heavy=True,
    ),
)


def run_all(site: Site, runs_dir: Path) -> list[Finding]:
    """All checks for one site; a check that cannot run is a finding, too."""
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            if check.heavy:
                findings += heavy.run_check(check.name)
            else:
                findings += check.load()(site, runs_dir)
        except RdtlError as error:
            problem = error.problem
            findings.append(
                Finding(
                    problem.code, "error", problem.what, problem.where, problem.why, problem.fix
                )
            )
    return findings
