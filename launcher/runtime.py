"""Which container a command's jobs run in: site, options and built images come together here."""

from __future__ import annotations

import shutil

from launcher.core.errors import UsageError
from launcher.core.runtimes import Container
from launcher.sites import Site

RUNTIMES = ("none", "apptainer", "docker", "pyxis")

# Combinations that an end-to-end test submits through (docs/architecture.md names it).
TESTED = {
    ("local", "apptainer"),
    ("local", "docker"),
    ("slurm", "apptainer"),
}


def choose(
    site: Site, runtime: str | None, image: str | None, *, submits: bool = True
) -> Container | None:
    """The container of a site's jobs, or None; ``runtime`` and ``image`` override the site.

    Raises UsageError RDTL-C001 for a combination of site and runtime that no test
    covers (with ``submits`` False it may still be rendered), and what
    :func:`launcher.images.resolve.resolve` raises about the image.
    """
    kind = runtime or (site.runtime if site.runtime != "none" or not image else _preferred(site))
    if kind not in RUNTIMES:
        raise UsageError("RDTL-U006", f"--runtime is one of {', '.join(RUNTIMES)}, not {kind}")
    if kind == "none":
        _no_image(image)
        return None
    if submits and (site.kind, kind) not in TESTED:
        tested = sorted(other for where, other in TESTED if where == site.kind)
        raise UsageError(
            "RDTL-C001",
            f"runtime {kind} on a {site.kind} site is not supported",
            why="only combinations that a test submits through are; --dry-run renders this one",
            fix=f"--runtime {' or '.join(['none', *tested])}",
        )
    name = image or site.image or ("all-gpu" if site.gpus_per_node else "all-cpu")
    return _pyxis(site, name) if kind == "pyxis" else _built(site, kind, name)


def _preferred(site: Site) -> str:
    if site.kind == "slurm" or shutil.which(site.apptainer):
        return "apptainer"
    return "docker"


def _no_image(image: str | None) -> None:
    if image:
        raise UsageError(
            "RDTL-U034",
            f"--image {image} has no effect with --runtime none",
            fix="leave one of them out",
        )


def _built(site: Site, kind: str, name: str) -> Container:
    from launcher.images import builder as builders
    from launcher.images.resolve import resolve

    builder = builders.load(None)
    image = resolve(name, kind, builder)
    return Container(
        runtime="docker" if kind == "docker" else "apptainer",
        image=image.reference,
        name=image.name,
        sha256=image.sha256,
        lock_sha256=image.lock_sha256,
        architecture=image.architecture,
        size_bytes=image.size_bytes,
        mtime_ns=image.mtime_ns,
        versions=image.labels.get("io.rdtl.versions", ""),
        program=builder.docker if kind == "docker" else _apptainer(site),
        options=tuple(site.apptainer_options),
        engine=builder.docker_host if kind == "docker" else None,
        gpu=site.gpus_per_node > 0,
    )


def _apptainer(site: Site) -> str:
    """The program as the nodes will find it: a path stays, a name is looked up there."""
    if site.kind == "local" and shutil.which(site.apptainer) is None:
        raise UsageError(
            "RDTL-C001",
            f"there is no {site.apptainer} on this machine",
            where="PATH",
            fix="rdtl doctor says how to get one, also without root",
        )
    return site.apptainer


def _pyxis(site: Site, name: str) -> Container:
    return Container("pyxis", name, name, "", "", "", gpu=site.gpus_per_node > 0)
