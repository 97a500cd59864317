"""Assets that are defined in configs/assets, against what they are for."""

from pathlib import Path

import pytest
import yaml

from rdt.encoders.embeddings import plain
from rdt.sim import backend

pytestmark = pytest.mark.sim
ASSETS = Path(__file__).parents[2] / "configs" / "assets"
SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")


@pytest.mark.slow
def test_the_asset_of_embeddings_has_every_instruction() -> None:
    asset = yaml.safe_load((ASSETS / "libero-t5-embeddings.yaml").read_text())
    named = {plain(Path(file).stem) for file in asset["files"]}
    backend.prepare()
    from libero.libero.benchmark import get_benchmark_dict

    with backend.quiet():
        suites = {name: get_benchmark_dict()[name]() for name in SUITES}
    tasks = {(name, task.name): task.language for name in SUITES for task in suites[name].tasks}
    assert {f"{suite}/{name}.pt" for suite, name in tasks} == set(asset["files"])
    assert set(tasks.values()) == named
    assert (len(tasks), len(named)) == (130, 112)
