"""The image in which the jobs of a site run."""

from __future__ import annotations

from launcher.core.checks import Finding
from launcher.doctor.subject import Subject
from launcher.runtime import choose


def image(subject: Subject) -> list[Finding]:
    """It is there, unchanged, of this machine's architecture and built from the lock as it is.

    Raises what :func:`launcher.runtime.choose` raises.
    """
    container = choose(subject.site, None, None)
    if container is None:
        return [Finding("RDTL-C024", "ok", "jobs run in no image")]
    text = f"image {container.name}, {container.architecture}, for {container.runtime}"
    return [Finding("RDTL-C024", "ok", text, container.image)]
