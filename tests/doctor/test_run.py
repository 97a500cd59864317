"""What is wrong with a run that nobody has started yet: its files, numbers, weights, image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.core import files
from launcher.doctor import examination
from launcher.doctor.examination import Result
from launcher.doctor.subject import Subject
from launcher.registry import CHECKS
from tests.doctor.conftest import subject
from tests.rdt import synthetic

TRAIN: dict[str, Any] = {"steps": 1000, "warmup_steps": 50}


def found(what: Subject, *names: str) -> list[Result]:
    """Results of these checks."""
    return examination.examine(what, [check for check in CHECKS if check.name in names])


def test_mistakes_of_a_configuration_are_told_before_it_runs(tmp_path: Path) -> None:
    wrong = subject(
        tmp_path,
        dataset={"sets": [{"path": str(tmp_path / "gone.hdf5")}]},
        train={"steps": 1000, "warmup_steps": 1, "model": {"horizon": 64}},
        evaluate={"execution_horizon": 64},
        task={"suite": "libero_10", "max_steps": 280},
    )
    told = {one.name: one for one in found(wrong, "training", "limits", "horizon", "places")}
    assert {name: (one.code, one.status) for name, one in told.items()} == {
        "training": ("RDTL-T005", "warn"),
        "limits": ("RDTL-E032", "warn"),
        "horizon": ("RDTL-E022", "warn"),
        "places": ("RDTL-D014", "fail"),
    }
    assert told["places"].where == str(tmp_path / "gone.hdf5")


def test_a_sound_configuration_has_no_findings(tmp_path: Path) -> None:
    synthetic.write_parts(tmp_path / "set", 1)
    sound = subject(
        tmp_path, dataset={"sets": [{"path": str(tmp_path / "set")}]}, train=TRAIN, evaluate={}
    )
    told = found(sound, "training", "limits", "horizon", "places")
    assert [one.status for one in told] == ["ok"] * 4


@pytest.mark.parametrize("policies", [["zero"], ["replay"]])
def test_only_who_reads_demonstrations_needs_them(tmp_path: Path, policies: list[str]) -> None:
    """An evaluation of a training's configuration, on a machine without its data."""
    evaluated = subject(
        tmp_path,
        dataset={"sets": [{"path": str(tmp_path / "gone.hdf5")}]},
        evaluate={"policies": policies},
    )
    said = {"zero": ("ok", "skipped"), "replay": ("fail", "fail")}[policies[0]]
    assert tuple(one.status for one in found(evaluated, "places", "data")) == said


def test_what_only_the_nodes_of_a_cluster_see_is_left_to_the_run(tmp_path: Path) -> None:
    sections = {
        "dataset": {"sets": [{"path": str(tmp_path / "there.hdf5")}]},
        "train": {**TRAIN, "checkpoint": str(tmp_path / "there")},
    }
    far = found(subject(tmp_path, {"kind": "slurm"}, **sections), "places", "data", "checkpoint")
    assert [one.status for one in far] == ["warn", "warn", "skipped", "skipped"]
    here = found(subject(tmp_path, **sections), "places", "data", "checkpoint")
    assert [one.status for one in here] == ["fail"] * 4


def test_a_name_that_no_file_system_takes_is_a_file_that_is_not_there(tmp_path: Path) -> None:
    impossible = subject(tmp_path, evaluate={"checkpoint": str(tmp_path / ("long" * 100))})
    assert [one.status for one in found(impossible, "places")] == ["fail"]


def written(folder: Path, demos: int, **change: Any) -> Subject:
    """A training on demonstrations of which ``change`` was made."""
    made = {f"demo_{n}": synthetic.demonstration(n, steps=60) for n in range(demos)}
    for arrays in made.values():
        for name, factor in change.items():
            arrays[name] = arrays[name] * factor
    path = synthetic.write(folder / "set" / f"{synthetic.TASK}_demo.hdf5", made)
    return subject(folder, dataset={"sets": [{"path": str(path)}]}, train=TRAIN)


def test_a_few_demonstrations_of_a_clean_set_are_read(tmp_path: Path) -> None:
    told = found(written(tmp_path, demos=8), "data")
    assert {one.status for one in told} == {"ok"}
    assert any("picture of 5 episodes" in one.evidence for one in told)


@pytest.mark.parametrize(
    ("demos", "held_out", "warmup", "sets", "codes"),
    [
        (4, 0.1, 10, 1, {"RDTL-T064"}),  # rounds to none of them
        (4, 1, 500, 1, {"RDTL-T062"}),  # ten epochs are 19 steps
        (4, 1, 10, 1, set()),
        (8, 1, 500, 1, set()),  # more than are looked at: nobody knows how many
        (4, 0.1, 500, 2, set()),  # the sum of both decides
    ],
)
def test_too_few_demonstrations_are_told_where_all_of_them_are_seen(
    tmp_path: Path, demos: int, held_out: float, warmup: int, sets: int, codes: set[str]
) -> None:
    """With `epochs` the configuration alone does not say how long the training is."""
    made = {f"demo_{n}": synthetic.demonstration(n, steps=60) for n in range(demos)}
    path = synthetic.write(tmp_path / "set" / f"{synthetic.TASK}_demo.hdf5", made)
    own = subject(
        tmp_path,
        dataset={"sets": [{"path": str(path)}] * sets, "held_out": held_out},
        train={"epochs": 10, "warmup_steps": warmup, "effective_batch": 32},
    )
    told = found(own, "data")
    assert {one.code for one in told if one.status == "fail"} == codes
    assert len(told) > len(codes)


@pytest.mark.parametrize(
    ("factor", "code"),
    [([1, 1, 1, 1, 1, 1, -1], "RDTL-D016"), ([0.05, 0.05, 0.05, 1, 1, 1, 1], "RDTL-D001"),
     ([float("nan")] * 7, "RDTL-D006")],
)  # fmt: skip
def test_bad_data_are_named(tmp_path: Path, factor: list[float], code: str) -> None:
    told = found(written(tmp_path, demos=6, actions=factor), "data")
    assert code in {one.code for one in told if one.status == "fail"}


@pytest.mark.slow
@pytest.mark.train
def test_weights_of_another_contract_and_a_chunk_without_a_second_look(tmp_path: Path) -> None:
    import json

    from rdt.spec import card
    from rdt.spec.contract import LIBERO_RAW_VELOCITY
    from tests.rdt import small_policy

    policy = small_policy.trained_folder(tmp_path)
    evaluated = subject(tmp_path, evaluate={"checkpoint": str(policy), "execution_horizon": 8})
    told = found(evaluated, "checkpoint")
    assert [(one.code, one.status) for one in told if one.status != "ok"] == [("RDTL-E022", "warn")]
    text = json.loads((policy / card.FILE).read_text())
    text["contract"] = json.loads(json.dumps(LIBERO_RAW_VELOCITY.to_dict()))
    (policy / card.FILE).write_text(json.dumps(text))
    begun = subject(tmp_path, train={**TRAIN, "checkpoint": str(policy)})
    (refused,) = found(begun, "checkpoint")
    assert (refused.code, refused.status) == ("RDTL-T012", "fail")
    assert "another contract" in refused.evidence


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    gone = subject(tmp_path, evaluate={"checkpoint": str(tmp_path / "gone")})
    (told,) = found(gone, "places")
    assert (told.code, told.status, told.where) == ("RDTL-T034", "fail", str(tmp_path / "gone"))


RDT, SIGLIP = "robotics-diffusion-transformer/rdt-1b", "google/siglip-so400m-patch14-384"
CONTAINER: dict[str, Any] = {"runtime": "apptainer", "image": "/bin/true"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """An empty cache of the hub, and what puts a repository into it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(name: str, *names: str) -> None:
        repository = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        for file in names:
            files.write_text(repository / "snapshots" / "abc" / file, "{}")
        files.write_text(repository / "refs" / "main", "abc")

    return put


@pytest.mark.parametrize(
    ("site", "bare", "status"),
    [({}, True, "fail"), ({"kind": "slurm"}, True, "warn"),
     ({"environment": {"HF_HOME": "/elsewhere"}}, True, "warn"), (CONTAINER, False, "fail"),
     ({"activate": {"default": "module load x"}}, False, "warn")],
)  # fmt: skip
def test_weights_that_only_the_hub_has_are_missed_before_the_job(
    site: dict[str, Any], bare: bool, status: str, tmp_path: Path, hub: Callable[..., None]
) -> None:
    """Jobs do not ask it: on a fresh machine they ended with T036, or T020 for SigLIP."""
    (tmp_path / "words").mkdir()
    public = {**TRAIN, "checkpoint": RDT, "language": str(tmp_path / "words")}
    stages = frozenset(["train"] if bare else [])
    begun = replace(subject(tmp_path, site, train=public), bare=stages)
    told = found(begun, "places")
    assert {(one.code, one.status, one.where) for one in told} == {
        ("RDTL-T036", status, "train.checkpoint"), ("RDTL-T020", status, "train.vision"),
    }  # fmt: skip
    assert any(f"train.vision=hf://models/{SIGLIP}" in one.fix for one in told)
    hub(RDT, "config.json", "pytorch_model.bin")
    hub(SIGLIP, "config.json")  # without its weights
    left = {one.code for one in found(begun, "places")}
    assert left == ({"RDTL-T020"} if bare else {"RDTL-T036", "RDTL-T020"})
    hub(SIGLIP, "model.safetensors")
    assert {one.status for one in found(begun, "places")} == {"ok" if bare else status}


def test_a_policy_of_unknown_size_is_said_to_get_a_small_one_s_memory(tmp_path: Path) -> None:
    public = {**TRAIN, "checkpoint": f"hf://models/{RDT}"}
    staged = {"checkpoint": "s3://bucket/policy", "policies": ["rdt"]}
    for sections in ({"train": public, "evaluate": {"policies": ["rdt"]}}, {"evaluate": staged}):
        (told,) = found(subject(tmp_path, **sections), "policy-memory")
        assert (told.code, told.status) == ("RDTL-E025", "warn")
    here = {**staged, "checkpoint": str(tmp_path)}
    said = {**staged, "policy_memory_mb": 7100}
    for quiet in ({"train": TRAIN, "evaluate": {"policies": ["rdt"]}}, {"evaluate": here},
                  {"evaluate": said}):  # fmt: skip
        assert [one.status for one in found(subject(tmp_path, **quiet), "policy-memory")] != [
            "warn"
        ]


def test_weights_that_are_staged_are_not_looked_for(tmp_path: Path, hub: object) -> None:
    (tmp_path / "words").mkdir()
    public = {"checkpoint": f"hf://models/{RDT}", "vision": f"hf://models/{SIGLIP}"}
    staged = subject(tmp_path, train={**TRAIN, **public, "language": str(tmp_path / "words")})
    assert [one.status for one in found(staged, "places")] == ["ok"]


def test_an_evaluation_wants_the_encoders_of_its_policys_card(
    tmp_path: Path, hub: Callable[..., None]
) -> None:
    """A fine-tuned policy with evaluate.language unset would want T5, 45 GB."""
    encoders = {"vision": SIGLIP, "language": "google/t5-v1_1-xxl"}
    files.write_json(tmp_path / "run" / "policy" / "card.json", {"encoders": encoders})
    tested = {"checkpoint": str(tmp_path / "run"), "policies": ["rdt"]}
    told = found(subject(tmp_path, evaluate=tested), "places")
    assert [(one.code, one.where) for one in told] == [
        ("RDTL-T020", "evaluate.vision"), ("RDTL-T020", "evaluate.language"),
    ]  # fmt: skip
    assert "rdtl data embed" in told[1].fix
    (warned,) = found(subject(tmp_path, evaluate=tested), "policy-memory")
    assert warned.status == "warn" and "T5" in warned.evidence
    hub(SIGLIP, "config.json", "model.safetensors")
    (tmp_path / "words").mkdir()
    named = subject(tmp_path, evaluate={**tested, "language": str(tmp_path / "words")})
    assert [one.status for one in found(named, "places", "policy-memory")] == ["ok", "ok"]


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    named = {"runtime": "apptainer", "image": str(tmp_path / "gone.sif"), "apptainer": "/bin/true"}
    (told,) = found(subject(tmp_path, named), "image")
    assert (told.code, told.status) == ("RDTL-C024", "fail")
    assert [one.status for one in found(subject(tmp_path), "image")] == ["ok"]
