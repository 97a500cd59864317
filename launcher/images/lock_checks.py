"""What goes wrong in a lock before anything is built: versions that do not fit together.

Pure: packages in, findings out. ``rdtl doctor`` looks at the locks of all
definitions, `rdtl image build` refuses one with errors.
"""

from __future__ import annotations

import re

from launcher.core.checks import Finding
from launcher.doctor.subject import Subject
from launcher.images import definition

Packages = dict[str, str]
"""Name as PyPI normalises it → version."""


def images(subject: Subject) -> list[Finding]:
    """The locks of all definitions that this installation finds."""
    found: list[Finding] = []
    for name in definition.names():
        what, lock = definition.load(name)
        found += check(str(lock.path), lock.text, lock.packages(), gpu=what.gpu)
    return found or [Finding("RDTL-C014", "ok", "the locks of all images fit together")]


def check(where: str, text: str, packages: Packages, *, gpu: bool) -> list[Finding]:
    """Findings about one lock; empty when all is well."""
    found = [
        _unpinned(text),
        _cuda_on_cpu(packages) if not gpu else None,
        _old_av(packages),
        _tensorflow(packages),
        _old_diffusers(packages),
        _two_clouds(packages),
    ]
    return [
        Finding(finding.code, "error", finding.what, where, finding.why, finding.fix)
        for finding in found
        if finding
    ]


def _unpinned(text: str) -> Finding | None:
    lines = [line for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line)]
    loose = [line.split()[0] for line in lines if "==" not in line.split()[0]]
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    bare = [entry.split("==")[0] for entry in entries if "--hash=sha256:" not in entry]
    if not loose and not bare:
        return None
    return Finding(
        "RDTL-C014",
        "error",
        f"packages without an exact version or hash: {', '.join((loose + bare)[:3])}",
        why="the next build would hold other packages under the same name",
        fix="make locks",
    )


def _cuda_on_cpu(packages: Packages) -> Finding | None:
    cuda = sorted(name for name in packages if name.startswith("nvidia-"))
    build = packages.get("torch", "+cpu").partition("+")[2]
    if not cuda and build == "cpu":
        return None
    return Finding(
        "RDTL-C011",
        "error",
        f"a CPU image would hold the CUDA build of torch ({', '.join(cuda[:2]) or build})",
        why="several gigabytes that no CPU uses; a looser requirement of another package took it",
        fix="pin torch to the CPU build (constraints.txt) and run make locks",
    )


def _old_av(packages: Packages) -> Finding | None:
    if "av" not in packages or 13 <= _numbers(packages["av"])[0] < 14:
        return None
    return Finding(
        "RDTL-C005",
        "error",
        f"av {packages['av']} is likely to be compiled, against an FFmpeg that must fit",
        why="only some versions come as wheels for this system; the build ends in FFmpeg's headers",
        fix="constrain av to >=13.1,<14",
    )


def _tensorflow(packages: Packages) -> Finding | None:
    tensorflow, types = packages.get("tensorflow"), packages.get("ml-dtypes")
    if (
        not tensorflow
        or not types
        or _numbers(tensorflow) < (2, 16)
        or _numbers(types) >= (0, 3, 2)
    ):
        return None
    return Finding(
        "RDTL-C006",
        "error",
        f"tensorflow {tensorflow} with ml-dtypes {types}",
        why="it fails at import: module 'ml_dtypes' has no attribute 'int2'",
        fix="tensorflow 2.15 with tensorflow-datasets 4.9.3, or read RLDS without TensorFlow",
    )


def _old_diffusers(packages: Packages) -> Finding | None:
    diffusers, hub = packages.get("diffusers"), packages.get("huggingface-hub")
    if not diffusers or not hub or _numbers(diffusers) > (0, 27, 2) or _numbers(hub) < (0, 26):
        return None
    return Finding(
        "RDTL-C012",
        "error",
        f"diffusers {diffusers} with huggingface-hub {hub}",
        why="it fails at import: cannot import name 'cached_download'",
        fix="huggingface-hub 0.23, or a newer diffusers",
    )


def _two_clouds(packages: Packages) -> Finding | None:
    if not {"vastai", "runpod"} <= packages.keys():
        return None
    return Finding(
        "RDTL-C013",
        "error",
        "vastai and runpod in one environment",
        why="their requirements on cryptography exclude each other",
        fix="leave both out: providers are spoken to over plain HTTP",
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))
