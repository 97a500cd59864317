"""Files of statistics: what we write is read, what is of another robot or broken is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launcher.core.errors import RdtlError, RefusedError, UsageError
from rdt.data import statistics_files
from rdt.data.declared import DeclaredSet
from rdt.data.measuring import Measured, measure
from rdt.spec.contract import CONTRACTS, LIBERO_VELOCITY
from tests.cli.run_rdtl import rdtl
from tests.data import writers
from tests.data.writers import Demo

NAME = "libero_object"


@pytest.fixture(scope="module")
def measured(demos: list[Demo], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """The collected demonstrations, in slots for RDT and raw for openpi."""
    path = writers.write_regenerated(demos, tmp_path_factory.mktemp("set"))
    raw = measure(DeclaredSet(path), LIBERO_VELOCITY, slots=False)
    slots = measure(DeclaredSet(path), LIBERO_VELOCITY, slots=True)
    return {"rdt": slots, "openpi": raw, "openpi-flat": raw}


@pytest.fixture
def written(measured: dict[str, Measured], tmp_path: Path) -> Callable[..., Path]:
    """A file of a format, changed as a text or as an object before it is read."""

    def write(format: str, change: Callable[[Any], Any] | None = None) -> Path:
        name = "dataset_stat.json" if format == "rdt" else "dataset_statistics.json"
        path = tmp_path / name
        statistics_files.write(path, format, {NAME: measured[format]})
        if change:
            data = json.loads(path.read_text())
            change(data)
            path.write_text(json.dumps(data))
        return path

    return write


def caught(path: Path, kind: type[RdtlError] = RefusedError) -> tuple[str, str]:
    with pytest.raises(kind) as error:
        statistics_files.read(path, LIBERO_VELOCITY)
    assert str(path if path.is_dir() else path.name) in error.value.problem.where
    return error.value.problem.code, f"{error.value.problem.what}; {error.value.problem.where}"


@pytest.mark.parametrize("format", statistics_files.FORMATS)
def test_what_is_written_is_read(
    format: str, written: Callable[..., Path], measured: dict[str, Measured]
) -> None:
    path = written(format)
    found = statistics_files.read(path, LIBERO_VELOCITY)
    assert found == statistics_files.read(path.parent, LIBERO_VELOCITY)
    assert found.name == ("" if format == "openpi-flat" else NAME)
    assert found.slots == (format == "rdt")
    for part, numbers in (("action", found.action), ("state", found.state)):
        assert numbers is not None
        for number, values in numbers.items():
            assert values == getattr(getattr(measured[format], part), number)
    assert found.source is not None
    assert found.source["dataset_digest"] == measured[format].digest


def test_rdt_s_keys_and_lengths(written: Callable[..., Path]) -> None:
    """As the reference and the field notes address them, e.g. ``libero_90.action_mean[30]``."""
    data = json.loads(written("rdt").read_text())
    entry = data[NAME]
    assert entry["dataset_name"] == NAME
    for part in ("state", "action"):
        for number in ("mean", "std", "min", "max"):
            assert len(entry[f"{part}_{number}"]) == 128
    assert entry["action_std"][39] > 0
    assert entry["action_std"][30] == 0, "this contract has no action there"
    assert entry["state_max"][10] <= 1


def test_openpi_s_keys_and_lengths(
    written: Callable[..., Path], measured: dict[str, Measured]
) -> None:
    steps = measured["openpi"].steps
    nested = json.loads(written("openpi").read_text())[NAME]
    flat = json.loads(written("openpi-flat").read_text())
    assert nested["num_samples"] == flat["num_transitions"] == steps
    assert flat["num_trajectories"] == 2
    for data in (nested, flat):
        assert len(data["action"]["q99"]) == 7
        assert len(data["proprio"]["q99"]) == 8


@pytest.mark.parametrize(
    ("key", "width", "code", "owner"),
    [
        ("action", 15, "RDTL-D003", "waypoints"),
        ("action", 14, "RDTL-D003", "two arms"),
        ("action", 9, "RDTL-D003", "another robot"),
        ("action", 128, "RDTL-D003", "RDT's unified vector"),
        ("proprio", 7, "RDTL-D004", "joint_state"),
        ("proprio", 15, "RDTL-D004", "joint_state and state together"),
    ],
)
@pytest.mark.parametrize("format", ["openpi", "openpi-flat"])
def test_statistics_of_other_robots(
    format: str, key: str, width: int, code: str, owner: str, written: Callable[..., Path]
) -> None:
    """Made as they come about: computed, by the same writer, from arrays of that width."""
    values = np.random.default_rng(0).normal(size=(50, width))

    def change(data: dict[str, Any]) -> None:
        block = (data[NAME] if format == "openpi" else data)[key]
        block["mean"], block["std"] = values.mean(0).tolist(), values.std(0).tolist()
        block["min"], block["max"] = values.min(0).tolist(), values.max(0).tolist()
        block["q01"], block["q99"] = np.quantile(values, [0.01, 0.99], axis=0).tolist()

    found, text = caught(written(format, change))
    assert found == code
    assert owner in text
    assert f"{width} numbers per" in text


@pytest.mark.parametrize(
    ("width", "code", "owner"),
    [(7, "RDTL-D003", "as openpi has them"), (14, "RDTL-D003", "two arms")],
)
def test_rdt_needs_128(width: int, code: str, owner: str, written: Callable[..., Path]) -> None:
    def change(data: dict[str, Any]) -> None:
        for number in statistics_files.RDT_NUMBERS:
            data[NAME][f"action_{number}"] = [0.5] * width

    found, text = caught(written("rdt", change))
    assert found == code
    assert owner in text


def broken(part: str, number: str, place: int, value: Any) -> Callable[[Any], None]:
    def change(data: dict[str, Any]) -> None:
        data[NAME][part][number][place] = value

    return change


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (broken("action", "mean", 3, float("nan")), "action.mean[3] = nan"),
        (broken("proprio", "std", 7, float("inf")), "proprio.std[7] = inf"),
        (broken("action", "q01", 2, None), "action.q01[2] = None"),
        (broken("action", "q01", 2, 5.0), "action.q01[2] = 5.0"),
        (broken("proprio", "min", 0, 5.0), "proprio.min[0] = 5.0"),
        (broken("action", "std", 6, 0.0), "action.std[6] = 0.0"),
    ],
)
def test_broken_numbers_are_named(
    change: Callable[[Any], None], where: str, written: Callable[..., Path]
) -> None:
    code, text = caught(written("openpi", change))
    assert code == "RDTL-D006"
    assert f"{NAME}.{where}" in text


def test_an_arm_that_never_turned_has_no_usable_statistics(
    demos: list[Demo], tmp_path: Path
) -> None:
    """A used dimension without spread, really recorded so, is refused when it is read."""
    demo = demos[0].part(40)
    demo.arrays["actions"] = demo.arrays["actions"] * np.array([1, 1, 1, 1, 0, 1, 1])
    source = DeclaredSet(writers.write_regenerated([demo], tmp_path))
    path = tmp_path / "dataset_statistics.json"
    statistics_files.write(path, "openpi", {NAME: measure(source, LIBERO_VELOCITY, slots=False)})
    assert "action.std[4] = 0.0" in caught(path)[1]


def test_unused_slots_may_rest(written: Callable[..., Path]) -> None:
    entry = json.loads(written("rdt").read_text())[NAME]
    assert entry["state_std"][50] == 0
    path = written("rdt", lambda data: data[NAME]["state_std"].__setitem__(30, 0.0))
    assert "state.std[30] = 0.0" in caught(path)[1]


def test_several_files_in_a_folder(written: Callable[..., Path]) -> None:
    path = written("openpi")
    (path.parent / "dataset_statistics_0a1b.json").write_bytes(path.read_bytes())
    code, text = caught(path.parent)
    assert code == "RDTL-D003"
    assert "2 files" in text
    path.unlink()
    (path.parent / "dataset_statistics_0a1b.json").unlink()
    assert caught(path.parent)[0] == "RDTL-D006"


def test_several_sets_in_a_file(
    measured: dict[str, Measured], tmp_path: Path, written: Callable[..., Path]
) -> None:
    path = tmp_path / "two.json"
    sets = {"a": measured["openpi"], "b": measured["openpi"]}
    statistics_files.write(path, "openpi", sets)
    assert statistics_files.read(path, LIBERO_VELOCITY, "b").name == "b"
    assert caught(path, UsageError)[0] == "RDTL-D033"
    with pytest.raises(UsageError, match="holds one data set, not 2"):
        statistics_files.write(path, "openpi-flat", sets)


def test_another_contract_is_refused(written: Callable[..., Path]) -> None:
    path = written("rdt")
    with pytest.raises(RefusedError) as error:
        statistics_files.read(path, CONTRACTS["libero-eef6d"])
    assert error.value.problem.code == "RDTL-T012"
    assert "libero-velocity, asked for libero-eef6d" in error.value.problem.where


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": {"b": 1}}', b"\xff\xfe", b"{}"])
def test_other_files_are_no_statistics(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "dataset_statistics.json"
    path.write_bytes(content)
    assert caught(path, RdtlError)[0] in ("RDTL-D006", "RDTL-D033")


def test_the_command(demos: list[Demo], tmp_path: Path) -> None:
    """RLDS in, a nested file out; the folder of the version gives no name."""
    episodes = [writers.rlds_episode(demo.part(200, every=4)) for demo in demos]
    folder = writers.write_rlds(episodes, tmp_path / "libero_object_no_noops/1.0.0")
    out = tmp_path / "dataset_statistics.json"
    done = rdtl(
        "data", "stats", str(folder), "--format", "openpi", "--out", str(out), "--json",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (name,) = json.loads(done.stdout)["sets"]
    assert name == "libero_object_no_noops"
    found = statistics_files.read(out, LIBERO_VELOCITY)
    assert (found.name, len(found.state["q99"])) == (name, 8)
    wrong = rdtl(
        "data", "stats", str(folder), "--format", "rdt", "--out", str(out),
        "--contract", "libero-velocty", cwd=tmp_path,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "did you mean libero-velocity?" in wrong.stderr


def test_the_data_are_never_written_over(collected: Path, tmp_path: Path) -> None:
    """--out names the data set itself, by another name, or lies in its folder."""
    copy, link = tmp_path / "set/task_demo.hdf5", tmp_path / "link.json"
    copy.parent.mkdir()
    shutil.copy(collected, copy)
    link.symlink_to(copy)
    before = (copy.stat(), sorted(copy.parent.iterdir()))
    inside = copy.parent / "dataset_stat.json"
    for source, out in ((copy, copy), (copy, link), (copy.parent, inside), (copy.parent, copy)):
        done = rdtl(
            "data", "stats", str(source), "--format", "rdt", "--out", str(out), cwd=tmp_path
        )
        assert (done.returncode, "RDTL-D075" in done.stderr) == (2, True)
    assert (copy.stat(), sorted(copy.parent.iterdir())) == before


@pytest.mark.slow
def test_one_of_several_sets_is_verified_by_its_name(demos: list[Demo], tmp_path: Path) -> None:
    sets = [
        writers.write_lerobot2([demo.part(200, every=8)], tmp_path / f"set{number}")
        for number, demo in enumerate(demos[:2])
    ]
    out = str(tmp_path / "two.json")
    made = rdtl("data", "stats", *map(str, sets), "--format", "rdt", "--out", out, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    verify = ("data", "verify", str(sets[1]), "--statistics", out)
    for name, status, said in (
        ((), 3, "--name"),
        (("--name", "set0"), 3, "RDTL-D002"),
        (("--name", "set1"), 0, "two.json holds the statistics of these data"),
    ):
        done = rdtl(*verify, *name, cwd=tmp_path)
        assert done.returncode == status and said in done.stdout + done.stderr


def test_a_place_that_cannot_be_written(demos: list[Demo], tmp_path: Path) -> None:
    folder = writers.write_lerobot2([demos[0].part(60, every=8)], tmp_path / "set")
    out = tmp_path / "file/dataset_stat.json"
    out.parent.write_text("not a folder")
    done = rdtl("data", "stats", str(folder), "--format", "openpi", "--out", str(out), cwd=tmp_path)
    assert (done.returncode, "RDTL-G018" in done.stderr) == (1, True)
    assert str(out.parent) in done.stderr and "Traceback" not in done.stderr
