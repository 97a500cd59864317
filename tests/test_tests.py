"""Every test can fail: it asserts, expects an error, or starts a program that must succeed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

JUDGES = ("assert", "raises", "fail", "warns")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def judges(function: Function, known: dict[str, Function], above: tuple[str, ...] = ()) -> bool:
    """Whether a function, or one of its own module that it calls, can make a test fail."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
        called = known.get(name)
        if name.startswith(JUDGES) or any(
            word.arg == "check" and ast.unparse(word.value) == "True" for word in node.keywords
        ):
            return True
        if called and name not in above and judges(called, known, (*above, function.name)):
            return True
    return False


def toothless(text: str) -> list[str]:
    """Names of the tests in a module that nothing can make fail."""
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, Function)]
    known = {node.name: node for node in found}
    return [f.name for f in found if f.name.startswith("test") and not judges(f, known)]


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("compute()", ["test_x"]),
        ("print(compute() == 3)", ["test_x"]),
        ("assert compute() == 3", []),
        ("with pytest.raises(ValueError): compute()", []),
        ("helper()", []),
        ("subprocess.run(['true'])", ["test_x"]),
        ("subprocess.run(['true'], check=True)", []),
    ],
)
def test_a_test_without_teeth_is_seen(body: str, names: list[str]) -> None:
    assert toothless(f"def helper():\n    assert 1\ndef test_x():\n    {body}\n") == names


def test_every_test_has_teeth() -> None:
    here = Path(__file__).parent
    found = {
        str(path.relative_to(here)): names
        for path in sorted(here.rglob("test_*.py"))
        if (names := toothless(path.read_text()))
    }
    assert found == {}
