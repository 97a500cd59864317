"""Each fault of a recipe is found, and the same recipe without it is clean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from launcher.dag import lint, load, resolve, shell_text
from launcher.providers import job
from tests.recipes.writing import loaded

GOOD: dict[str, Any] = {
    "fetch": {
        "script": 'echo "$where" > "$where/a"\n',
        "outputs": ["${where}/a"],
        "verify": {"cheap": ["test", "-s", "${where}/a"]},
        "timeout": "1m",
    },
    "use": {
        "needs": ["fetch"],
        "argv": ["cat", "${where}/a"],
        "secrets": ["TOKEN"],
        "verify": {"cheap": "true"},
        "timeout": "1m",
        "resources": {"net": 1},
    },
}
HEAD: dict[str, Any] = {
    "parameters": {"where": {"about": "folder", "default": "/w"}},
    "secrets": {"TOKEN": "reads it"},
}


def codes(folder: Path, changes: dict[str, dict[str, Any]], **head: Any) -> set[str]:
    steps = {name: {**GOOD.get(name, {}), **changes.get(name, {})} for name in {**GOOD, **changes}}
    steps = {name: {k: v for k, v in step.items() if v is not None} for name, step in steps.items()}
    made = loaded(folder, steps, **{**HEAD, **head})
    found = lint.findings(made, resolve.resolve(made, "/run"))
    assert [one.severity for one in found] == sorted(one.severity for one in found)
    return {one.code for one in found}


def test_a_good_recipe_is_clean(tmp_path: Path) -> None:
    assert codes(tmp_path, {}) == set()


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("RDTL-B051", {"fetch": {"needs": ["use"]}}),
        ("RDTL-B051", {"fetch": {"needs": ["fetsh"]}}),
        ("RDTL-B051", {"use": {"resources": {"net": 3}}}),
        ("RDTL-B051", {"use": {"resources": {"tape": 1}}}),
        ("RDTL-B051", {"use": {"markers": [{"name": "m", "pattern": "("}]}}),
        ("RDTL-U128", {"use": {"outputs": ["/w/./a"]}}),
        ("RDTL-U129", {"use": {"verify": None}}),
        ("RDTL-U130", {"use": {"timeout": None}}),
        ("RDTL-U126", {"use": {"secrets": ["TOKEN", "OTHER"]}}),
        ("RDTL-W003", {"use": {"argv": ["x", "hf_" + "a" * 30]}}),
        ("RDTL-W003", {"use": {"argv": ["git", "clone", "https://me:secret12@host/x"]}}),
        ("RDTL-W003", {"use": {"argv": None, "script": 'curl -H "A: $TOKEN" x < "$where/a"'}}),
        ("RDTL-U131", {"fetch": {"script": 'echo x > $where/a "$where"'}}),
        ("RDTL-B008", {"use": {"needs": []}}),
        ("RDTL-B008", {"use": {"needs": [], "argv": None, "script": 'cat "$where/a"'}}),
        ("RDTL-B009", {"use": {"argv": ["tmux", "send-keys", "${where}/a", "Enter"]}}),
        ("RDTL-B011", {"use": {"argv": ["bash", "-c", "cat ${where}/a | tee log"]}}),
        ("RDTL-B020", {"use": {"argv": ["torchrun", "${where}/a"]}}),
        ("RDTL-B014", {"use": {"argv": ["systemctl", "start", "x", "${where}/a"]}}),
        ("RDTL-B017", {"use": {"argv": None, "script": "pgrep -f train"}}),
    ],
)
def test_faults(tmp_path: Path, code: str, changes: dict[str, Any]) -> None:
    assert codes(tmp_path, changes) == {code}


def test_faults_of_the_whole(tmp_path: Path) -> None:
    assert codes(tmp_path, {}, files=["gone.yaml"]) == {"RDTL-U127"}
    parameters = {**HEAD["parameters"], "idle": {"about": "nothing", "default": "1"}}
    assert codes(tmp_path, {}, parameters=parameters) == {"RDTL-U132"}
    assert codes(tmp_path, {}, secrets={**HEAD["secrets"], "IDLE": "nothing"}) == {"RDTL-U132"}


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ('echo "$a"', []),
        ("echo $a", ["a"]),
        ("echo '$a'", []),
        ('echo "$(cat $a)"', ["a"]),
        ('echo "$(cat "$a")"', []),
        ("echo # $a\necho ${b}", ["b"]),
        ("echo \\$a", []),
        ('x="$(( $a + 1 ))"', []),
        ("cat <<END\n$a b\nEND\necho $b", ["b"]),
        ('echo "it\'s $a" $b', ["b"]),
    ],
)
def test_what_stands_without_quotes(script: str, names: list[str]) -> None:
    assert [name for _, name in shell_text.unquoted(script)] == names


@pytest.mark.parametrize(
    ("script", "is_shown"),
    [
        ('printf "%s" "$T" > file', False),
        ('if [[ -n "$T" ]]; then true; fi', False),
        ('x="$T"', False),
        ('login --token "$T"', True),
        ('true && login "$T"', True),
        ('printf %s "$T" | login', False),
        ('login <<< "$T"', False),
        ('x=$(login "$T")', True),
        ("cat > file <<END\ntoken $T\nEND", False),
    ],
)
def test_what_others_could_see_of_a_secret(script: str, is_shown: bool) -> None:
    assert bool(list(shell_text.shown(script, {"T"}))) is is_shown


@pytest.mark.parametrize("name", load.names())
def test_shipped_recipes_are_clean(name: str) -> None:
    made = load.load(name)
    values = {n: p.choices[0] if p.choices else "1" for n, p in made.recipe.parameters.items()
              if p.default is None}  # fmt: skip
    for profile in made.recipe.profiles or [None]:
        found = lint.findings(made, resolve.resolve(made, "/run", profile, values))
        assert [one for one in found if one.severity == "error"] == []


def test_the_recipe_of_the_page_is_clean_brings_its_files_and_takes_its_result_away(
    tmp_path: Path,
) -> None:
    """Who copies it finds everything on the box, and `--down-after` can give the box back."""
    page = (Path(__file__).parents[2] / "docs" / "cloud.md").read_text("utf-8")
    (text,) = re.findall(r"```yaml\n(name: small\n.*?)```", page, re.DOTALL)
    (tmp_path / "small.yaml").write_text(text)
    for name in ("train.py", "data.sha256"):
        (tmp_path / name).write_text("")
    small = load.load(str(tmp_path / "small.yaml"))
    graph = resolve.resolve(small, "/run")
    assert lint.findings(small, graph) == []
    by_name = {step.name: step for step in graph.steps}
    assert "/run/files/train.py" in by_name["train"].argv
    assert set(small.recipe.files) == {"train.py", "data.sha256"}
    (last,) = job.closing(graph)
    assert any("(?P<proven>" in marker.pattern for marker in by_name[last].markers)
