"""docs/why-zero-percent.md: mistakes are named, examples load, tables are the results."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks import zero, zero_caught, zero_data, zero_page
from launcher import config
from launcher.core.errors import RdtlError
from rdt.data import statistics_files
from rdt.data.checks import verify_set
from rdt.data.declared import DeclaredSet
from rdt.spec import recipe
from rdt.spec.contract import LIBERO_VELOCITY

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / zero_caught.EXAMPLES
IN_DATA = {
    case.made.split()[3]: case.code for case in zero_caught.CASES if "SPOILED" in case.arguments
}


@pytest.mark.parametrize(("mistake", "code"), IN_DATA.items())
def test_a_mistake_in_the_data_is_the_only_error(
    mistake: str, code: str, collected: Path, tmp_path: Path
) -> None:
    path = tmp_path / collected.name
    zero_data.spoil(mistake, collected, path)
    findings = verify_set(DeclaredSet(path), LIBERO_VELOCITY, None)
    assert {f.code for f in findings if f.severity == "error"} == {code}


def test_every_mistake_that_can_be_made_is_listed() -> None:
    assert set(IN_DATA) == set(zero_data.MISTAKES)
    assert set(zero.TRAINED_IN) < set(zero.MISTAKES)


@pytest.mark.parametrize(
    ("name", "code"), [("statistics-15d", "RDTL-D003"), ("statistics-proprio-7", "RDTL-D004")]
)
def test_statistics_of_another_width(name: str, code: str) -> None:
    with pytest.raises(RdtlError) as error:
        statistics_files.read(EXAMPLES / f"{name}.json", LIBERO_VELOCITY)
    assert error.value.problem.code == code


@pytest.mark.parametrize(("name", "code"), [("warm-up", "RDTL-T005"), ("batch-32", "RDTL-T006")])
def test_recipes_that_are_unusual(name: str, code: str) -> None:
    loaded = config.load_run_config(EXAMPLES / f"{name}.yaml", [], ["train"])
    assert loaded.train is not None
    found = recipe.findings(loaded.train.model_dump(mode="json"), loaded.train.steps)
    assert [finding.code for finding in found] == [code]


def test_every_example_loads_and_is_on_the_page() -> None:
    page = (ROOT / "docs/why-zero-percent.md").read_text()
    for path in EXAMPLES.iterdir():
        assert path.name in page
        if path.suffix == ".yaml":
            sections = [
                key for key in ("train", "evaluate") if key in yaml.safe_load(path.read_text())
            ]
            assert config.load_run_config(path, [], sections).name.startswith("why-zero")


def test_the_tables_are_the_results() -> None:
    page = zero_page.PAGE.read_text()
    assert zero_page.filled(page) == page
    for case in zero_caught.CASES:
        assert f"| {case.mistake} |" in page


def test_pairs_are_counted_over_what_both_have() -> None:
    def episodes(*successes: bool) -> dict[int, dict[str, bool]]:
        return {30 + number: {"success": one} for number, one in enumerate(successes)}

    counted = zero.pairs(episodes(True, True, True, False), episodes(True, False, False))
    assert counted == zero.Pairs(both=1, only_without=2, only_with=0, neither=0)
    line = zero.row(
        "x",
        {
            "successes": 1,
            "episodes": 3,
            "interval": [0.06, 0.79],
            "pairs": counted._asdict(),
            "p": 0.5,
        },
    )
    assert line == "| x | 1/3 | 6.0–79.0 | 2 lost, 0 won | 0.5 |"
