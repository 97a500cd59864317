"""What `evaluate.checkpoint` may name, which copy is taken, and what is noted of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs import evaluate, evaluated
from launcher import config as configs
from launcher.cli.evaluate import weights_chosen, with_network
from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError, UsageError
from launcher.core.job import Job
from launcher.core.runs import RunDir
from launcher.placement import named_files
from launcher.report import reading
from launcher.report.compare import differing_fields
from rdt import checkpoint
from rdt.checkpoint import save
from rdt.serve import exact
from rdt.spec import card as cards
from rdt.spec import chunks
from rdt.spec import protocol as protocols
from rdt.spec import record as records
from rdt.spec.contract import LIBERO_RAW_VELOCITY
from tests.cli.run_rdtl import rdtl
from tests.evaluation.test_plan import run_config
from tests.rdt import checkpoints, small_policy
from tests.report.runs import VERSIONS
from tests.serve import servers

pytestmark = pytest.mark.train


def job_of(root: Path, task: dict[str, Any] | None = None, **settings: Any) -> Job:
    """A task that evaluates the policy rdt with these settings."""
    asked = {"policies": ["rdt"], "execution_horizon": 4, **settings}
    config = run_config(task, **asked).model_dump(mode="json")
    run = RunDir(root)
    files.write_json(run.plan, {"config": config})
    return Job(run, config, "evaluate", 0, 1, attempt=0, node=0)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """RUN/checkpoints/step_000020/policy of the public shape, as an adopted one: no encoders."""
    folder = tmp_path / "run" / "checkpoints" / "step_000020" / "policy"
    folder.parent.mkdir(parents=True)
    network = small_policy.network(small_policy.config())
    save(folder, network, small_policy.card(LIBERO_RAW_VELOCITY))
    return folder


def test_a_run_a_step_and_a_file_are_the_same_weights(policy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "policy").symlink_to(policy, target_is_directory=True)
    named = [run, policy.parent, policy, policy / "model.safetensors"]
    found = [
        evaluated.tested(job_of(tmp_path / str(n), checkpoint=str(place)))
        for n, place in enumerate(named)
    ]
    assert set(found) == {found[0]} and found[0].checkpoint
    for place in named:  # what an evaluation then loads
        assert checkpoint.open_checkpoint(place).card == evaluated.cards.read(policy)
    noted = files.read_json(tmp_path / "1" / "records" / protocols.WEIGHTS)
    assert (noted["weights"], noted["dtype"], noted["findings"]) == ("ema", "float32", [])


def test_records_of_batches_are_told_apart(policy: Path, tmp_path: Path) -> None:
    """Rounding differs between shapes, devices and types, so an episode may end otherwise."""
    ways: dict[str, dict[str, Any]] = {
        "policy seed, episode, query": {"workers": 4},
        "policy seed, episode, query, batches of 4": {"workers": 4, "rows": 4},
        "policy seed, episode, query, batches of whoever asks": {"workers": 4, "batching": "free"},
        "policy seed, episode, query, batches of 4, cuda": {"rows": 4, "gpus": 1},
    }
    found = {}
    for number, (rule, asked) in enumerate(ways.items()):
        job = job_of(tmp_path / str(number), checkpoint=str(policy), **asked)
        made = protocols.from_config(job.config, VERSIONS, "osmesa", evaluated.tested(job).sight)
        assert made.policy_seed_rule == rule
        found[made.fingerprint()] = made
    alone = job_of(tmp_path / "alone", checkpoint=str(policy))
    sight = evaluated.tested(alone).sight
    default = protocols.from_config(alone.config, VERSIONS, "osmesa", sight)
    assert len(found) == 4 and found[default.fingerprint()] == default, "workers do not matter"
    for other in (made for made in found.values() if made != default):
        assert [name for name, _, _ in differing_fields(default, other)] == ["policy_seed_rule"]


def test_a_server_tells_of_its_batches(tmp_path: Path) -> None:
    made = small_policy.policy(rows=2)
    with servers.ours(made) as uri:
        job = job_of(tmp_path / "run", policies=["server"], server=uri)
        found = evaluated.tested(job).sight.seed_rule
    assert found == "the server's seed 5, episode, query, batches of 2"
    with servers.foreign(lambda asked: {}) as (uri, _):
        job = job_of(tmp_path / "foreign", policies=["server"], server=uri)
        assert evaluated.tested(job).sight.seed_rule == "the server's own"
    with servers.foreign(lambda asked: {}, {"protocol": exact.PROTOCOL}) as (uri, _):
        job = job_of(tmp_path / "tells-less", policies=["server"], server=uri)
        sight = evaluated.tested(job).sight
    assert sight == protocols.Sight("not told", (), "the server's own")


@pytest.mark.slow
def test_an_average_in_16_bits_is_warned_of_before_and_after(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    network = small_policy.network(small_policy.config(), torch.bfloat16)
    checkpoints.reference(folder, network)
    checkpoints.reference(folder / "ema", network)
    for copy, kind in ((folder, "raw"), (folder / "ema", "ema")):
        path = copy / "model.safetensors"
        made = replace(small_policy.card(LIBERO_RAW_VELOCITY), weights=kind, dtype="bfloat16")
        replace(made, weights_sha256=evaluated.cards.weights_sha256(path)).write(copy)
    for asked, taken in (("auto", "raw"), ("ema", "ema"), ("raw", "raw")):
        findings, horizon = weights_chosen(str(folder), asked)
        assert horizon == small_policy.HORIZON
        assert findings[0].what.startswith(f"{taken} weights, bfloat16")
        warned = [f.code for f in findings if f.severity == "warning"]
        assert warned == ([] if asked == "raw" else ["RDTL-T002"])
        job = job_of(tmp_path / asked, checkpoint=str(folder), weights=asked)
        assert evaluated.tested(job).checkpoint
        noted = files.read_json(job.run.records / protocols.WEIGHTS)
        assert noted["weights"] == taken
        assert [f["code"] for f in noted["findings"]] == warned


@pytest.mark.parametrize(
    ("executed", "warned"), [(8, True), pytest.param(4, False, marks=pytest.mark.slow)]
)
def test_a_horizon_that_hardly_replans_is_warned_of_before_and_after(
    policy: Path, tmp_path: Path, executed: int, warned: bool
) -> None:
    """Chunks have 8 actions. The command line says it, and the report once more."""
    grid = ["policies=[rdt]", f"checkpoint={policy}", f"execution_horizon={executed}"]
    words = [word for setting in grid for word in ("--set", f"evaluate.{setting}")]
    done = rdtl("evaluate", "smoke", *words, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ("RDTL-E022" in done.stdout) == warned
    job = job_of(tmp_path / "job", checkpoint=str(policy), execution_horizon=executed)
    evaluated.tested(job)
    noted = files.read_json(job.run.records / protocols.WEIGHTS)["findings"]
    assert [f["code"] for f in noted] == ["RDTL-E022"] * warned
    assert not warned or noted[0]["fix"].startswith("--set evaluate.execution_horizon=2, or ")


@pytest.mark.parametrize(("executed", "warned"), [(8, True), (5, False)])
@pytest.mark.parametrize("metadata", [{}, {"action_horizon": 10}])
def test_the_first_answer_of_a_server_tells_how_it_replans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], executed: int, warned: bool,
    metadata: dict[str, int],
) -> None:  # fmt: skip
    """It is said once, whatever the server declares and however many tasks ask it."""
    answer = {"actions": np.zeros((10, 7), np.float32)}
    key = records.EpisodeKey("server", "libero_object", 0, 30, 0)
    with servers.foreign(lambda asked: answer, metadata) as (uri, _):
        job = job_of(tmp_path, policies=["server"], server=uri, execution_horizon=executed)
        evaluated.tested(job)
        noted = job.run.records / protocols.SERVER
        assert not noted.exists()
        for _ in range(2):
            policy = evaluated.load(job, "server")(key.suite, key.task_id)
            policy.begin(None, key)  # type: ignore[arg-type]
            for query in range(2):
                policy.chunk(small_policy.observation(query + 1), query)
            policy.close()  # type: ignore[attr-defined]
    said = capsys.readouterr().out.splitlines()
    assert said == [f"warning RDTL-E022: {text}" for text in [
        "8 of the 10 actions of each chunk are executed before the policy looks again"
    ] if warned]  # fmt: skip
    assert noted.exists() == warned
    found = reading.findings(job.run)
    assert [(f["code"], f["severity"]) for f in found] == [("RDTL-E022", "warning")] * warned
    assert not warned or uri in found[0]["where"]


def test_a_token_that_this_node_does_not_see_is_named(tmp_path: Path) -> None:
    place = str(tmp_path / "token")
    job = job_of(tmp_path, policies=["server"], server="ws://127.0.0.1:9", server_token=place)
    with pytest.raises(UsageError, match="RDTL-E057") as caught:
        evaluated.tested(job)
    assert f"evaluate.server_token {place}: No such file" in caught.value.problem.where


def test_more_than_half_of_a_chunk_is_hardly_replanning() -> None:
    """What is published executes at most half: RDT 16 of 64, openpi 5 of 10, GR00T 8 of 16."""
    published = ((16, 64), (5, 10), (8, 16), (1, 1))
    assert [f for pair in published for f in chunks.replanning(*pair, "here")] == []
    for executed in (33, 64):
        (found,) = chunks.replanning(executed, 64, "here")
        assert (found.code, found.severity) == ("RDTL-E022", "warning")
        assert "execution_horizon=16" in found.fix and "--horizons 8,16,32" in found.fix


def test_weights_without_a_card_are_to_be_adopted(tmp_path: Path) -> None:
    folder = checkpoints.reference(tmp_path / "foreign", checkpoints.network())
    job = job_of(tmp_path / "run", checkpoint=str(folder))
    with pytest.raises(RdtlError, match="RDTL-T012") as caught:
        evaluate.body(job)
    assert f"rdtl checkpoint adopt {folder}" in caught.value.problem.fix
    assert not job.run.records.exists()  # a protocol without its policy would be in the way later
    with pytest.raises(RdtlError, match="RDTL-T012"):
        weights_chosen(str(folder), "auto")


def test_paths_are_absolute_bound_and_hub_ids_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.yaml").write_text("{name: x, evaluate: {policies: [zero]}}")
    weights = tmp_path / "made" / "ema" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    settings = [
        "evaluate.checkpoint=made/ema/model.safetensors",
        "evaluate.vision=google/siglip-so400m-patch14-384",
        "evaluate.language=./sentences",
    ]
    config = with_network(configs.load_run_config(tmp_path / "file.yaml", settings, ["evaluate"]))
    assert config.evaluate is not None
    assert config.evaluate.policies == ["rdt", "zero"]
    assert config.evaluate.vision == "google/siglip-so400m-patch14-384"
    assert named_files(config) == [tmp_path / "sentences", tmp_path / "made"]


@pytest.mark.parametrize(("trained_at", "refused"), [(128, True), (256, False), (0, False)])
def test_a_fine_tune_is_shown_pictures_of_the_size_of_its_data(
    policy: Path, tmp_path: Path, trained_at: int, refused: bool
) -> None:
    """SigLIP takes any size; `smoke` and `published` render 256 pixels, LIBERO's own data 128."""
    replace(cards.read(policy), camera_size=trained_at).write(policy)
    job = job_of(tmp_path / "job", {"camera_size": 256}, checkpoint=str(policy))
    if not refused:
        evaluated.tested(job)
        return
    with pytest.raises(RefusedError, match="RDTL-T012") as caught:
        evaluated.tested(job)
    assert caught.value.problem.fix == "--set task.camera_size=128"


@pytest.mark.slow
@pytest.mark.sim
def test_an_adopted_public_policy_is_evaluated(policy: Path, tmp_path: Path) -> None:
    """SigLIP from a folder, instructions encoded before; tiny instances of the public classes."""
    small_policy.vision().model.save_pretrained(tmp_path / "siglip")
    words = torch.randn(7, small_policy.LANG)
    name = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
    small_policy.save_sentence(tmp_path / "sentences", name, words)
    job = job_of(
        tmp_path / "evaluation",
        {"max_steps": 6, "camera_size": 64},
        checkpoint=str(policy.parent),
        vision=str(tmp_path / "siglip"),
        language=str(tmp_path / "sentences"),
        init_states=(0, 1),
    )
    evaluate.body(job)
    (found,) = records.read_folder(job.run.records)
    assert (found.status, found.steps, found.queries) == ("fail", 6, 2)
    assert found.checkpoint == evaluated.cards.read(policy).weights_sha256[:12]
    assert protocols.read(job.run.records).views == ("agentview", "eye_in_hand", "background")
