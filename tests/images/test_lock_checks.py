"""Locks that cannot work are refused before anything is built."""

from __future__ import annotations

import pytest

from launcher.images import definition
from launcher.images.lock_checks import check


def lock(name: str) -> tuple[str, dict[str, str]]:
    _, found = definition.load(name)
    return found.text, found.packages()


@pytest.mark.parametrize("name", definition.names())
def test_the_shipped_locks_are_clean(name: str) -> None:
    what, found = definition.load(name)
    assert check(name, found.text, found.packages(), gpu=what.gpu) == []


def test_a_cuda_build_in_a_cpu_image() -> None:
    """The lock that really comes out when nothing holds torch on its CPU build."""
    text, packages = lock("train-gpu")
    (finding,) = check("x", text, packages, gpu=False)
    assert finding.code == "RDTL-C011"
    assert "nvidia-" in finding.what


def test_a_line_that_is_not_pinned_or_has_no_hash() -> None:
    text, packages = lock("sim-cpu")
    for spoiled in (text + "six\n", text + "six==1.17.0\n"):
        (finding,) = check("x", spoiled, packages, gpu=False)
        assert finding.code == "RDTL-C014"
        assert "six" in finding.what


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"av": "12.3.0"}, "RDTL-C005"),
        ({"tensorflow": "2.16.1", "ml-dtypes": "0.2.0"}, "RDTL-C006"),
        ({"diffusers": "0.27.2", "huggingface-hub": "0.26.0"}, "RDTL-C012"),
        ({"vastai": "1.9.1", "runpod": "1.12.0"}, "RDTL-C013"),
        ({"av": "13.1.0"}, None),
        ({"tensorflow": "2.15.0", "ml-dtypes": "0.2.0"}, None),
        ({"diffusers": "0.27.2", "huggingface-hub": "0.23.5"}, None),
    ],
)
def test_versions_that_do_not_fit_together(more: dict[str, str], code: str | None) -> None:
    text, packages = lock("sim-cpu")
    found = check("x", text, {**packages, **more}, gpu=False)
    assert [finding.code for finding in found] == ([code] if code else [])
