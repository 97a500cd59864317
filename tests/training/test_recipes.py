"""The shipped recipes on the shipped example sites, through the command that a user types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from launcher import config, forecast, presets, sites
from launcher.cli.app import app
from launcher.core import files
from launcher.core.errors import UsageError
from launcher.core.plan import Plan
from launcher.core.runs import RunDir
from launcher.schema import RunConfig
from launcher.sites import Site
from launcher.staging import definitions
from rdt.spec import cost
from rdt.spec.recipe import findings, order_findings

ROOT = Path(__file__).parents[2]
BATCHES = {"single-gpu": 16, "sft": 32, "lora": 192, "paper": 256, "overfit-one-demo": 16}
PLACE = Site(kind="slurm", nodes=9, max_memory_per_node_mb=100_000)
MACHINES = {"one-gpu": (1, 1), "a100-node": (1, 8), "a100-cluster": (4, 8)}

WEIGHTS = {"train.checkpoint": "rdt-1b", "train.vision": "siglip-so400m-patch14-384"}
"""What each recipe begins with, by the names of configs/assets."""


def public(asset: str) -> str:
    """Where a defined asset lies, in its newest version."""
    uri: str = definitions.load(asset).uri
    return uri.partition("@")[0]


def dry_run(recipe: str, site: str, runs: Path, *settings: str) -> dict[str, Any]:
    words = ["train", f"configs/train/{recipe}.yaml", "--site", site, "--dry-run", "--json"]
    words += ["--runs-dir", str(runs)]
    for setting in settings:
        words += ["--set", setting]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("site", MACHINES)
@pytest.mark.parametrize("recipe", BATCHES)
def test_every_recipe_renders_on_every_site(
    recipe: str, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    nodes, ranks = MACHINES[site]
    settings = (f"train.nodes={nodes}", f"train.ranks_per_node={ranks}")
    if BATCHES[recipe] < nodes * ranks:
        with pytest.raises(UsageError, match="RDTL-T060"):
            dry_run(recipe, site, tmp_path, *settings)
        return
    answer = dry_run(recipe, site, tmp_path, *settings)
    train = answer["plan"]["config"]["train"]
    product = train["micro_batch"] * train["accumulation"] * nodes * ranks
    assert product == train["effective_batch"] == BATCHES[recipe]
    stage = next(stage for stage in answer["plan"]["stages"] if stage["name"] == "train")
    assert (stage["nodes"], stage["gpus_per_node"]) == (nodes, ranks)
    assert str(ranks) in answer["scripts"]["train"]
    if site != "one-gpu":
        assert f"--nodes={nodes}" in answer["scripts"]["train"]
        assert f"--gpus-per-node=a100:{ranks}" in answer["scripts"]["train"]
        cores = {1: 8, 8: 64}[ranks]  # of 64 that a node of 8 GPUs has
        assert f"--cpus-per-task={cores}" in answer["scripts"]["train"]
    assert "GPU-hours" in answer["forecast"][-1]
    assert "assumed" in answer["forecast"][1]
    assert answer["plan"]["stages"][0]["name"] == "stage", "jobs do not ask the hub"
    staged = {asset["key"]: asset["uri"] for asset in answer["plan"]["config"]["assets"]}
    assert staged == {key: public(name) for key, name in WEIGHTS.items()}
    for key in WEIGHTS:
        assert train[key.removeprefix("train.")].startswith(f"{tmp_path}/{recipe}-{site}/assets/")
    assert not list(tmp_path.iterdir()), "a dry run writes nothing"


@pytest.mark.parametrize("recipe", BATCHES)
def test_a_recipe_means_what_its_notes_say(recipe: str) -> None:
    """Its own ranks, at once, without a finding."""
    loaded = config.load_run_config(ROOT / f"configs/train/{recipe}.yaml", [], ["train"])
    train = loaded.train
    assert train is not None
    told = {
        "single-gpu": (8, 2, 1e-5, 500, None, 1000),
        "sft": (8, 4, 1e-4, 1000, 200_000, 5000),
        "lora": (8, 24, 1e-4, 6000, 200_000, 5000),
        "paper": (4, 8, 1e-4, 5000, 100_000, 2000),
        "overfit-one-demo": (8, 2, 1e-5, 100, 2000, 1000),
    }
    assert told[recipe] == (
        *(train.micro_batch, train.accumulation, train.learning_rate),
        *(train.warmup_steps, train.steps, train.checkpoint_every),
    )
    assert (train.lora is not None) == (recipe == "lora")
    assert findings(train.model_dump(), train.steps) == []
    assert order_findings(loaded.dataset.model_dump()) == []


@pytest.mark.parametrize("name", ["default", "quick", "wide"])
def test_the_demo_is_usual(name: str) -> None:
    """RDTL-T006 among what is not said of it: its network is small and begins afresh."""
    loaded = config.load_run_config(ROOT / f"configs/demo/{name}.yaml", [], ["train"])
    assert loaded.train is not None
    assert findings(loaded.train.model_dump(), loaded.train.steps) == []
    assert order_findings(loaded.dataset.model_dump()) == []


def test_out_of_memory_halves_the_micro_batch_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    train = dry_run("paper", "a100-node", tmp_path, "train.micro_batch=2")["plan"]["config"][
        "train"
    ]
    assert (train["micro_batch"], train["accumulation"], train["effective_batch"]) == (2, 16, 256)


def test_operations_are_those_counted_in_the_published_networks() -> None:
    """GFLOP of a sampled chunk of five steps, counted in the reference: all, and keys once."""
    for name, every, once in (("170m", 791, 274), ("1b", 6045, 1906)):
        net = cost.PUBLISHED[f"robotics-diffusion-transformer/rdt-{name}"]
        a, k, d = cost.adaptors(net), cost.keys(net), cost.denoise(net)
        assert (a + 5 * (k + d)) / 1e9 == pytest.approx(every, abs=0.5)
        assert (a + k + 5 * d) / 1e9 == pytest.approx(once, abs=0.5)


def plan_of(run: RunDir, site: str = "s", **train: Any) -> Plan:
    data = {"name": "x", "collect": {}, "train": {"effective_batch": 32, **train}}
    loaded = config.validate(RunConfig, data, "here")
    return presets.pipeline(loaded, site, PLACE, run, None)


def write_run(runs: Path, name: str, speeds: list[float], **train: Any) -> None:
    run = RunDir(runs / name)
    files.write_json(run.plan, plan_of(run, **train).to_dict())
    files.write_text(run.config, "")
    run.checkpoints.mkdir()
    lines = [json.dumps({"step": s, "train/samples_per_second": v}) for s, v in enumerate(speeds)]
    (run.checkpoints / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def test_what_was_measured_there_foretells(tmp_path: Path) -> None:
    here = RunDir(tmp_path / "x-s")
    unknown = forecast.lines(here, plan_of(here, steps=3600), PLACE)
    assert "unknown" in unknown[-1]
    write_run(tmp_path, "old-s", [1, 1, 64, 63, 65])
    write_run(tmp_path, "other-s", [1, 1, 9, 9, 9], dtype="bf16")
    write_run(tmp_path, "elsewhere", [1, 1, 9, 9, 9])
    plan = files.read_json(tmp_path / "elsewhere/plan.json")
    files.write_json(tmp_path / "elsewhere/plan.json", {**plan, "site": "t"})
    found = forecast.lines(here, plan_of(here, steps=3600, nodes=2), PLACE)
    assert "115,200 samples" in found[0]
    assert found[1].startswith("130 samples/s on 4 ranks: measured in old-s on 2 ranks")
    assert found[2] == "0.25 hours, 1 rank-hours"


def test_epochs_are_hours_once_their_samples_are_counted(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "x-s")
    write_run(tmp_path, "old-s", [1, 1, 64])
    before = forecast.lines(run, plan_of(run, epochs=2), PLACE)
    assert before[-1].startswith("each 100,000 samples 0.43 hours")
    run.data.mkdir(parents=True)
    files.write_json(run.data / "windows.json", {"windows": 115_200})
    assert forecast.lines(run, plan_of(run, epochs=2), PLACE)[-1] == "1 hours, 2 rank-hours"
    weighed = {"windows": 115_200, "epoch_samples": 230_400}  # of data sets with weights
    files.write_json(run.data / "windows.json", weighed)
    assert forecast.lines(run, plan_of(run, epochs=2), PLACE)[-1] == "2 hours, 4 rank-hours"


def test_a_staged_checkpoint_is_known_by_its_uri_wherever_it_was_linked(tmp_path: Path) -> None:
    """The link lies in each run's own folder; the network is the same."""
    uri = "hf://models/robotics-diffusion-transformer/rdt-170m@abc"
    write_run(tmp_path, "old-s", [1, 1, 64], checkpoint=uri)
    here = RunDir(tmp_path / "x-s")
    assert "measured in old-s" in forecast.lines(here, plan_of(here, checkpoint=uri), PLACE)[1]


def test_example_sites_are_read() -> None:
    for name, (nodes, gpus) in MACHINES.items():
        site = sites.load(name)
        assert (site.nodes, site.gpus_per_node) == (nodes, gpus)
