"""The proofs that steps call on the box: each refuses what it is there for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.core import box_checks, box_files, box_machine, box_training
from launcher.core.errors import RefusedError
from tests.recipes.boxes import wait_for

ROOT = Path(__file__).parents[2]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "launcher.core.box_checks", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, capture_output=True, text=True, env=env, check=False)


def test_a_check_ends_with_its_code_for_programs_and_people(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    good = run("counts", str(tmp_path), "*.json=1")
    assert good.returncode == 0 and "counts as expected" in good.stdout
    bad = run("counts", str(tmp_path), "*.json=2")
    assert bad.returncode == 3 and bad.stderr.startswith("error RDTL-G002: ")


@pytest.mark.parametrize(
    ("name", "content", "wanted", "gigabytes"),
    [
        ("b.tfrecord", b"x", [("*.tfrecord", 2)], 0.0),
        ("b.tfrecord", b"", [("*.tfrecord", 1)], 0.0),
        ("b.tfrecord.abc.partial", b"x", [("*.json", 1)], 0.0),
        ("b.json.extra", b"x", [("*.json", 1)], 0.001),
    ],
    ids=["missing", "empty", "partial", "small"],
)
def test_a_copy_that_is_not_complete(
    name: str, content: bytes, wanted: list[tuple[str, int]], gigabytes: float, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RefusedError, match="RDTL-G002"):
        box_files.counts(tmp_path, wanted, gigabytes)


def model(path: Path, shape: list[int], *, cut: int = 0) -> Path:
    size = 2 * shape[0] * shape[1]
    header = {"w": {"dtype": "BF16", "shape": shape, "data_offsets": [0, size]}, "__metadata__": {}}
    text = json.dumps(header).encode()
    path.write_bytes((struct.pack("<Q", len(text)) + text + bytes(size))[: -cut or None])
    return path


def test_a_model_is_whole_or_refused(tmp_path: Path) -> None:
    whole = model(tmp_path / "model.safetensors", [4, 3])
    assert box_files.safetensors(whole, 1, [("w", [4, 3])])
    for keys, shape in ((2, [4, 3]), (1, [3, 4])):
        with pytest.raises(RefusedError, match="RDTL-G007"):
            box_files.safetensors(whole, keys, [("w", shape)])
    with pytest.raises(RefusedError, match="RDTL-G007"):
        box_files.safetensors(model(tmp_path / "torn", [4, 3], cut=1), 1, [])
    (tmp_path / "page").write_text("<html>not found</html>" * 10)
    with pytest.raises(RefusedError, match="RDTL-G007"):
        box_files.safetensors(tmp_path / "page", 1, [])


def numbers(wide: int, **more: list[float]) -> dict[str, list[float]]:
    return {name: [0.0] * wide for name in ("mean", "std", "q01", "q99")} | more


@pytest.mark.parametrize(
    ("action", "proprio", "steps", "code"),
    [
        (numbers(15), numbers(8), 320, "RDTL-D003"),
        (numbers(7), numbers(7), 320, "RDTL-D004"),
        (numbers(7, mean=[float("nan")] * 7), numbers(8), 320, "RDTL-D006"),
        (numbers(7, q01=[1.0] * 7), numbers(8), 320, "RDTL-D006"),
        (numbers(7), numbers(8), 319, "RDTL-D006"),
    ],
    ids=["other robot", "joints", "nan", "order", "other data"],
)
@pytest.mark.parametrize("nested", [True, False])
def test_statistics_of_something_else(
    action: object, proprio: object, steps: int, code: str, nested: bool, tmp_path: Path
) -> None:
    entry = {"action": action, "proprio": proprio}
    key = "num_samples" if nested else "num_transitions"
    entry[key] = steps
    path = tmp_path / "dataset_statistics.json"
    path.write_text(json.dumps({"libero": entry} if nested else entry))
    with pytest.raises(RefusedError, match=code):
        box_files.statistics(path, 7, 8, 320)


ROBOT = 'RobotConfig(robot_type="libero", actual_action_dim=7, actual_proprio_dim={})'


def test_sizes_of_a_robot_are_those_of_its_code(tmp_path: Path) -> None:
    """RDTL-D005: notes of one program say 8 and 6; what decides is what it would read."""
    source, path = tmp_path / "robot_config.py", tmp_path / "dataset_statistics.json"
    path.write_text(json.dumps({"action": numbers(7), "proprio": numbers(8), "num_samples": 320}))
    for text, code in ((ROBOT.format(8), ""), (ROBOT.format(6), "RDTL-D004"),
                       (ROBOT.format("len(dims)"), "RDTL-D005"), ("", "RDTL-D005")):  # fmt: skip
        source.write_text(f"import nothing_that_is_there\nmade = {text or None}\n")
        done = run("statistics", str(path), str(source), "libero", "--steps", "320")
        assert (done.returncode, done.stderr[6:15]) == ((3, code) if code else (0, ""))


def test_a_pin_contains_what_mended_a_failure(tmp_path: Path) -> None:
    """RDTL-D026: of two commits the older one is the flawed one."""
    git = ("git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org")
    commits = []
    for words in (("init", "-q"), *[("commit", "-q", "--allow-empty", "-m", "c")] * 2):
        subprocess.run([*git, *words], check=True)
        head = [*git, "rev-parse", "-q", "--verify", "HEAD"]
        commits.append(subprocess.run(head, capture_output=True, text=True).stdout.strip())
    _, flawed, mended = commits
    words = ("--contains", f"RDTL-D026={mended}")
    assert run("commit", str(tmp_path), mended, *words).returncode == 0
    subprocess.run([*git, "checkout", "-q", flawed], check=True)
    done = run("commit", str(tmp_path), flawed, *words)
    assert done.returncode == 3 and done.stderr.startswith("error RDTL-D026: ")
    assert mended[:12] in done.stderr
    assert run("commit", str(tmp_path), flawed, "--contains").returncode == 0


def test_versions_are_compared_as_numbers(tmp_path: Path) -> None:
    python = Path(sys.executable)
    assert "numpy" in box_machine.packages("RDTL-C010", python, ["numpy>=1.9", "numpy<100"])
    with pytest.raises(RefusedError, match="RDTL-C010"):
        box_machine.packages("RDTL-C010", python, ["numpy==1.9"])
    with pytest.raises(RefusedError, match="RDTL-C006"):
        box_machine.packages("RDTL-C006", python, ["no-such-package==1"])
    assert box_machine.numbers("2.7.1+cu128") == [2, 7, 1]


def test_an_overlay_is_a_file_of_its_own(tmp_path: Path) -> None:
    source, target, cache = (tmp_path / name for name in ("source", "target", "cache"))
    for folder in (source / "models", target / "models", cache):
        folder.mkdir(parents=True)
    (source / "models/a.py").write_text("changed")
    (cache / "a.py").write_text("original")
    os.link(cache / "a.py", target / "models/a.py")
    with pytest.raises(RefusedError, match="RDTL-C008"):
        box_machine.overlay(source, target, apply=False)
    box_machine.overlay(source, target, apply=True)
    assert (cache / "a.py").read_text() == "original"
    shutil.copy(source / "models/a.py", cache / "changed.py")
    (target / "models/a.py").unlink()
    os.link(cache / "changed.py", target / "models/a.py")
    with pytest.raises(RefusedError, match="RDTL-C009"):
        box_machine.overlay(source, target, apply=False)


def test_values_are_compared_as_numbers_and_paths_looked_for(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        f"batch_size: 144  # of each GPU\npeak_lr: 9.0e-5\ndata: {tmp_path}\nother: /no\n"
    )
    assert box_training.config(file, [("batch_size", "144"), ("peak_lr", "0.00009")], ["data"])
    for values, paths, code in (
        ([("batch_size", "160")], [], "RDTL-B007"),
        ([("save_interval", "50")], [], "RDTL-B007"),
        ([], ["other"], "RDTL-B015"),
        ([], ["nothing"], "RDTL-B015"),
    ):
        with pytest.raises(RefusedError, match=code):
            box_training.config(file, values, paths)


@pytest.fixture
def rclone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one, with no remote configured."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("RCLONE_CONFIG", "/dev/null")
    monkeypatch.setenv("RCLONE_LOW_LEVEL_RETRIES", "1")


def checkpoints(folder: Path, *steps: str) -> Path:
    for step in steps:
        (folder / step).mkdir(parents=True)
        (folder / step / "model").write_text(step)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("rclone")
def test_only_proven_checkpoints_are_removed(tmp_path: Path) -> None:
    folder, store = tmp_path / "checkpoints", tmp_path / "store"
    checkpoints(folder, "tmp_400", "100", "200", "300")
    box_training.uploads(folder, str(store), 1, follow=False)
    assert sorted(p.name for p in folder.iterdir()) == ["300", "tmp_400", "uploaded.json"]
    assert sorted(p.name for p in store.glob("*00")) == ["100", "200", "300"]
    shutil.rmtree(folder)
    box_training.newest(folder, str(store))
    assert (folder / "300/model").read_text() == "300"
    checkpoints(folder, "400", "500")
    (store / "400").write_text("a file where the folder would be")
    failed = run("uploads", str(folder), str(store), "--keep", "1")
    assert "RDTL-G008" in failed.stderr and failed.returncode == 1
    assert sorted(p.name for p in folder.glob("*00")) == ["400", "500"]  # 300 came from there
    assert (store / "500.complete").exists() and not (store / "400.complete").exists()


@pytest.mark.usefixtures("rclone")
def test_a_later_training_of_the_same_steps_is_uploaded_too(tmp_path: Path) -> None:
    """The first one was bad and its folders were removed by hand, what it uploaded was not."""
    folder, store = tmp_path / "checkpoints", tmp_path / "store"
    checkpoints(folder, "100", "200")
    box_training.uploads(folder, str(store), 1, follow=False)
    shutil.rmtree(folder / "200")
    checkpoints(folder, "100", "200")
    for step in ("100", "200"):
        (folder / step / "model").write_text(f"another {step}")
    box_training.uploads(folder, str(store), 1, follow=False)
    assert [(store / s / "model").read_text() for s in ("100", "200")] == [
        "another 100", "another 200",
    ]  # fmt: skip
    assert sorted(p.name for p in folder.glob("*00")) == ["200"]


@pytest.mark.usefixtures("rclone")
def test_a_folder_is_not_its_own_store(tmp_path: Path) -> None:
    folder = checkpoints(tmp_path / "checkpoints", "100", "200")
    (tmp_path / "link").symlink_to(folder)
    for store in ("checkpoints", "link"):
        refused = run("uploads", str(folder), str(tmp_path / store), "--keep", "1")
        assert "RDTL-G046" in refused.stderr and refused.returncode == 3
    assert sorted(p.name for p in folder.iterdir()) == ["100", "200"]


@pytest.mark.usefixtures("rclone")
def test_a_store_that_cannot_be_asked_is_not_an_empty_one(tmp_path: Path) -> None:
    assert "step 0" in box_training.newest(tmp_path / "here", str(tmp_path / "nothing"))
    for remote in ("unknown:runs", ':webdav,url="http://127.0.0.1:9":runs'):
        failed = run("newest", str(tmp_path / "here"), remote)
        assert failed.returncode == 1 and "error RDTL-G002" in failed.stderr, remote


@pytest.mark.usefixtures("rclone")
def test_an_upload_that_was_killed_is_not_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = tmp_path / "checkpoints", tmp_path / "store"
    box_training.uploads(checkpoints(folder, "300"), str(store), 3, follow=False)
    (checkpoints(folder, "400") / "400/optimizer").write_bytes(bytes(8 << 20))
    monkeypatch.setenv("RCLONE_BWLIMIT", "1M")
    argv = [sys.executable, "-P", "-m", "launcher.core.box_checks", "uploads"]
    argv += [str(folder), str(store), "--keep", "3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, env=environment, start_new_session=True) as client:
        wait_for(lambda: list(store.glob("400/*")))
        os.killpg(client.pid, signal.SIGKILL)
    monkeypatch.delenv("RCLONE_BWLIMIT")
    assert not (store / "400/optimizer").exists()
    assert "step 300" in box_training.newest(tmp_path / "next", str(store))
    box_training.uploads(folder, str(store), 3, follow=False)
    assert "step 400" in box_training.newest(tmp_path / "after", str(store))
    assert (tmp_path / "after/400/optimizer").stat().st_size == 8 << 20


@pytest.mark.usefixtures("rclone")
def test_uploads_go_on_after_one_that_failed(tmp_path: Path) -> None:
    folder, store = checkpoints(tmp_path / "checkpoints", "100", "200"), tmp_path / "store"
    store.mkdir()
    (store / "100").write_text("a file where the folder would be")
    follow = "from launcher.core import box_training as b, box_checks; b.POLL_S = 0.1; "
    follow += (
        f"box_checks.main(['uploads', {str(folder)!r}, {str(store)!r}, '--keep=3', '--follow'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-P", "-c", follow]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as uploader:
        try:
            assert uploader.stdout is not None
            said = [uploader.stdout.readline() for _ in range(2)]
            (store / "100").unlink()
            said.append(uploader.stdout.readline())
        finally:
            uploader.kill()
    assert said == [
        f"uploaded and proven: step 200 -> {store}/200\n",
        "not uploaded yet, tried again until it is: "
        "checkpoint 100 is not proven to be uploaded: rclone copy failed\n",
        f"uploaded and proven: step 100 -> {store}/100\n",
    ]


def test_every_check_has_a_parser() -> None:
    with pytest.raises(SystemExit):
        box_checks.main(["no-such-check"])
