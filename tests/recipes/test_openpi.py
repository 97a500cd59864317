"""``openpi/waypoint-ae`` from a bare box to its last step, and what is said when it cannot.

The world around the box is small and real (``standins``); only GPUs are simulated.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from launcher import diagnose
from launcher.dag import load, resolve
from tests.recipes.openpi_box import CANARY, RECIPE, Box, Outcome
from tests.recipes.standins import world as worlds
from tests.staging import servers

ROOT = Path(__file__).parents[2]
VLM = "openpi/waypoint-vlm"
Change = Callable[[Box], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("openpi")
    with worlds.world(folder) as world:
        yield Box(world, folder / "machine")


@pytest.fixture(scope="module")
def finished(box: Box) -> Outcome:
    """The whole recipe, once."""
    outcome = box.run(box.graph())
    assert outcome.rc == 0, outcome.events[-5:]
    return outcome


def test_the_recipe_ends_in_proven_checkpoints(box: Box, finished: Outcome) -> None:
    assert sorted(finished.steps("step_done")) == sorted(step.name for step in box.graph().steps)
    assert finished.values("weights") == {"loaded": "811", "skipped": "1"}
    assert finished.values("uploaded") == {"proven": "gg1:runs/ae/fixed"}
    assert finished.values("first") == {"first_loss": "0.8500"}
    uploaded = sorted(p.name for p in (box.world.folder / "drive/runs/ae/fixed/20").iterdir())
    assert uploaded == ["metadata.pt", "model.safetensors", "optimizer.pt"]


def test_statistics_are_those_of_numpy(box: Box, finished: Outcome) -> None:
    found = json.loads(
        (
            box.world.workspace / "data/libero_object_no_noops/1.0.0/dataset_statistics.json"
        ).read_text()
    )
    random = np.random.default_rng(0)
    actions = []
    for _ in range(worlds.EPISODES):
        actions.append(random.uniform(-1, 1, (worlds.STEPS, 7)).astype(np.float32))
        random.normal(size=(worlds.STEPS, 8))
    rows = np.concatenate(actions).astype(np.float64)
    np.testing.assert_allclose(found["action"]["q99"], np.quantile(rows, 0.99, axis=0), atol=1e-6)
    np.testing.assert_allclose(found["action"]["mean"], rows.mean(axis=0), atol=1e-12)


def test_a_second_run_does_nothing_but_prove(box: Box, finished: Outcome) -> None:
    again = box.run(box.graph())
    assert again.rc == 0
    assert again.steps("step_begin") == ["upload"]  # which is always asked again


def test_the_overlay_does_not_reach_other_environments(box: Box, finished: Outcome) -> None:
    """uv links files out of its cache: writing through them would change every environment."""
    other = box.folder / "other"
    uv = Path(box.world.path.split(":")[0]) / "uv"
    words = ["pip", "install", "--quiet", "--target", str(other), "transformers==4.53.2"]
    subprocess.run([uv, *words], env=box.environment, check=True, timeout=60)
    assert (
        other / "transformers/models/gemma/modeling_gemma.py"
    ).read_text() == "original = True\n"


def test_no_secret_is_left_but_in_the_drive_s_own_file(box: Box, finished: Outcome) -> None:
    holding = holding_a_secret([box.folder, box.world.workspace, box.world.folder / "drive"])
    assert holding == [box.world.workspace / ".secrets/rclone.conf"]
    assert holding[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_training_goes_on_from_its_newest_checkpoint(box: Box, finished: Outcome) -> None:
    """On a box that has nothing: another box's newest upload is fetched, then resumed."""
    checkpoints = box.world.workspace / "checkpoints/waypoint_ae_fixed"
    shutil.rmtree(checkpoints)
    outcome = box.fresh(box.only(["restore"]))
    assert outcome.rc == 0
    assert sorted(p.name for p in checkpoints.iterdir()) == ["20", "uploaded.json"]
    box.fresh(box.only(["config"], steps="30"))
    outcome = box.fresh(box.only(["train"], steps="30"))
    box.fresh(box.only(["upload"], steps="30"))
    box.fresh(box.only(["config"]))
    assert outcome.rc == 0, outcome.events[-3:]
    assert outcome.values("resumed") == {"resumed": "20"}
    uploaded = sorted(p.name for p in (box.world.folder / "drive/runs/ae/fixed").iterdir())
    assert uploaded == ["10", "10.complete", "20", "20.complete", "30", "30.complete"]


@pytest.mark.parametrize("name", ["openpi/waypoint-ae", VLM])
def test_no_profile_goes_on_from_another_ones_checkpoints(name: str) -> None:
    """One trains each GPU alone and keeps the first one's weights: nobody resumes from those."""
    loaded = load.load(name)
    values = {"upload": "gg1:runs/x"}
    graphs = [resolve.resolve(loaded, "/run", p, values) for p in loaded.recipe.profiles]
    for step in ("restore", "train", "upload"):
        steps = [next(one for one in graph.steps if one.name == step) for graph in graphs]
        places = {(one.env["checkpoints"], one.env["profile"]) for one in steps}
        assert len(places) == len(graphs) == 2
        assert all("$upload/$profile" in (one.script or "") for one in steps)


@pytest.mark.slow
def test_the_language_part_is_trained_on_the_same_box(box: Box, finished: Outcome) -> None:
    for step in ("config", "statistics", "config_check", "train"):
        outcome = box.fresh(box.only([step], VLM, upload=""))
        assert outcome.rc == 0, outcome.events[-3:]
    assert outcome.values("weights") == {"loaded": "603", "missing": "1", "unexpected": "0"}
    assert outcome.values("step")["loss"] in ("11.4000", "4.6000")


@pytest.mark.slow
def test_over_ssh_a_killed_client_attaches_again(box: Box, tmp_path: Path) -> None:
    """A new box behind a real sshd; whoever started the recipe is killed in the middle of it."""
    own_places = {"workspace": str(tmp_path / "far"), "upload": "gg1:runs/far"}
    far = replace(box.world, settings={**box.world.settings, **own_places})
    machine = Box(far, tmp_path / "machine")
    for name in ("RCLONE_TOKEN", "WANDB_API_KEY"):
        (tmp_path / name).write_text(f"{CANARY}-of-{name}")
    environment = " ".join(f'"{name}={value}"' for name, value in machine.environment.items())
    with servers.sshd(tmp_path / "sshd") as (server, _):
        server.kill()
        configured = (tmp_path / "sshd/sshd.conf").read_text()
        (tmp_path / "sshd/sshd.conf").write_text(f"{configured}SetEnv {environment}\n")
        server.start()
        host = ["--host", f"ssh://root@127.0.0.1:{server.port}"]
        host += [f"--ssh-option=-i{tmp_path}/sshd/me", "--ssh-option=-oIdentitiesOnly=yes"]

        def rdtl(verb: str, *words: str) -> list[str]:
            return [sys.executable, "-P", "-m", "launcher", "recipe", verb, RECIPE, *host, *words]

        settings = [word for pair in far.settings.items() for word in ("--set", "=".join(pair))]
        secrets = [w for n in ("RCLONE_TOKEN", "WANDB_API_KEY")
                   for w in ("--secret", f"{n}=file:{tmp_path / n}")]  # fmt: skip
        own = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path / "state")}
        with subprocess.Popen(rdtl("run", *settings, *secrets), env=own) as client:
            until(lambda: list((tmp_path / "far").glob("openpi/pyproject.toml")) != [])
            client.kill()
        attached = subprocess.run(rdtl("attach"), env=own, timeout=200, check=False)
        assert attached.returncode == 0
        events = list((tmp_path / "machine/home").rglob("events.jsonl"))
    told = [json.loads(line) for line in events[0].read_text().splitlines()]
    begun = [one["step"] for one in told if one["event"] == "step_begin"]
    assert sorted(begun) == sorted(step.name for step in box.graph().steps)  # none twice
    places = [tmp_path / "far", tmp_path / "machine", tmp_path / "state"]
    assert holding_a_secret(places) == [tmp_path / "far/.secrets/rclone.conf"]


def until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def holding_a_secret(places: list[Path]) -> list[Path]:
    """Files below ``places`` in which the canary can be read."""
    return [
        path
        for place in places
        for path in place.rglob("*")
        if path.is_file() and not path.is_symlink() and CANARY.encode() in path.read_bytes()
    ]


@contextmanager
def changed(path: Path, content: bytes | None) -> Iterator[None]:
    """A file that holds something else, or is not there, while the block runs."""
    before = path.read_bytes() if path.exists() else None
    path.unlink(missing_ok=True)  # never write through a link
    if content is not None:
        path.write_bytes(content)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)


def training(fault: str) -> Change:
    """The training program meets a fault; checkpoints of earlier runs are out of its way."""

    @contextmanager
    def change(box: Box) -> Iterator[None]:
        place = box.world.workspace / "checkpoints"
        place.rename(place.with_name("aside"))
        try:
            with changed(box.world.workspace / "openpi/scripts/fault", fault.encode()):
                yield
        finally:
            shutil.rmtree(place, ignore_errors=True)
            place.with_name("aside").rename(place)

    return change


def file(name: str, content: bytes | None) -> Change:
    return lambda box: changed(box.world.workspace / name, content)


def tool(old: str, new: str) -> Change:
    text = worlds.NVIDIA_SMI.replace(old, new).encode()

    @contextmanager
    def change(box: Box) -> Iterator[None]:
        smi = box.world.folder / "bin/nvidia-smi"
        with changed(smi, text):
            smi.chmod(0o755)
            yield
        smi.chmod(0o755)

    return change


@contextmanager
def token_in_remote(box: Box) -> Iterator[None]:
    git = ["git", "-C", str(box.world.workspace / "openpi"), "remote", "set-url", "origin"]
    subprocess.run([*git, f"https://me:{CANARY}@example.org/openpi.git"], check=True)
    yield
    subprocess.run([*git, box.world.settings["repository"]], check=True)


@contextmanager
def another_sync(box: Box) -> Iterator[None]:
    """Somebody runs `uv sync` by hand: TensorFlow and the overlay are gone."""
    uv = Path(box.world.path.split(":")[0]) / "uv"
    words = ["sync", "--quiet", "--reinstall", "--project", str(box.world.workspace / "openpi")]
    subprocess.run([uv, *words], env=box.environment, check=True, timeout=60)
    yield
    assert box.fresh(box.only(["tf"])).rc == 0
    assert box.fresh(box.only(["nccl"])).rc == 0
    assert box.fresh(box.only(["overlay"])).rc == 0


@contextmanager
def without_configuration(box: Box) -> Iterator[None]:
    """A commit whose openpi has no training configuration of the name that the step gives."""
    converter = box.world.workspace / "openpi/examples/convert_jax_model_to_pytorch.py"
    text = converter.read_text().replace('"pi05_libero"', '"pi05_libero_v2"')
    with changed(converter, text.encode()):
        yield


@contextmanager
def converter_alone(box: Box) -> Iterator[None]:
    """The model is made by upstream's command; the converter copies no statistics by itself."""
    model = box.world.workspace / "models/pi05_base_pytorch"
    model.rename(model.with_name("aside"))
    openpi = box.world.workspace / "openpi"
    words = ["examples/convert_jax_model_to_pytorch.py", "--config_name", "pi05_libero"]
    words += ["--checkpoint_dir", str(model.with_name("pi05_base_jax") / "pi05_base")]
    words += ["--output_path", str(model), "--precision", "bfloat16"]
    subprocess.run(
        [openpi / ".venv/bin/python", *words], cwd=openpi, env=box.environment, check=True
    )
    try:
        yield
    finally:
        shutil.rmtree(model)
        model.with_name("aside").rename(model)


@contextmanager
def no_optimizer(box: Box) -> Iterator[None]:
    """A checkpoint as later commits save it: resuming reads what is not there."""
    folder = box.world.workspace / "checkpoints/waypoint_ae_fixed"
    newest = max((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    with changed(newest / "optimizer.pt", None):
        yield


@contextmanager
def nothing(box: Box) -> Iterator[None]:
    yield


PROOF = ": its proof"
PROJECT, D = (
    "openpi/pyproject.toml",
    "data/libero/libero_object_no_noops/libero_object_no_noops/1.0.0",
)
ROBOT_CONFIG = "src/openpi/waypoint/robot_config.py"
STATISTICS = "data/libero_object_no_noops/1.0.0"
JOINTS = json.dumps(
    {
        "action": dict.fromkeys(("mean", "std", "q01", "q99"), [0.0] * 7),
        "proprio": dict.fromkeys(("mean", "std", "q01", "q99"), [0.0] * 7),
        "num_transitions": 320,
    }
).encode()
VARIANTS: dict[str, tuple[Change, str, str, dict[str, str]]] = {
    "other GPU": (
        tool("RTX PRO 6000 Blackwell Server Edition", "GeForce RTX 3090"),
        "preflight",
        "RDTL-B001",
        {},
    ),
    "less memory": (tool("97887", "24576"), "preflight", "RDTL-B001", {}),
    "one GPU": (tool("0 1;", "0;"), "preflight", "RDTL-B001", {}),
    "old driver": (tool("575.57.08", "535.104"), "preflight", "RDTL-B022", {}),
    "small disk": (nothing, "preflight", "RDTL-G001", {"disk_gb": "900000"}),
    "branch moved": (file(PROJECT, b"changed"), "clone" + PROOF, "RDTL-B007", {}),
    "labels are wrong": (nothing, "clone", "RDTL-D026", {"contains": f"RDTL-D026={'1' * 40}"}),
    "token in the remote": (token_in_remote, "clone", "RDTL-W001", {}),
    "override in a comment": (
        file(PROJECT, b'[tool.uv]\n# override-dependencies = ["av>=13.1.0,<14.0.0"]\n'),
        "av_override",
        "RDTL-C005",
        {},
    ),
    "TensorFlow is gone": (another_sync, "tf" + PROOF, "RDTL-C006", {}),
    "overlay is gone": (another_sync, "overlay" + PROOF, "RDTL-C008", {}),
    "other torch": (nothing, "uv_sync", "RDTL-C010", {"wheels": "torch==2.8.0"}),
    "old NCCL": (nothing, "nccl" + PROOF, "RDTL-T017", {"nccl": "nvidia-nccl-cu12>=2.31"}),
    "other remote": (nothing, "dl_rlds", "RDTL-G014", {"remote": "gg2"}),
    "shard lost": (
        file(f"{D}/libero_object-train.tfrecord-00003-of-00032", b""),
        "dl_rlds" + PROOF,
        "RDTL-G002",
        {},
    ),
    "checkpoint not whole": (nothing, "dl_base", "RDTL-G006", {"base_gb": "11.5"}),
    "tensor lost": (
        file("models/pi05_base_jax/pi05_base/params/lacks-a-tensor", b"x"),
        "convert",
        "RDTL-G007",
        {},
    ),
    "configuration renamed": (without_configuration, "convert", "RDTL-B019", {}),
    "statistics not copied": (converter_alone, "convert" + PROOF, "RDTL-E018", {}),
    "joints for state": (
        file(f"{STATISTICS}/dataset_statistics.json", JOINTS),
        "statistics" + PROOF,
        "RDTL-D004",
        {},
    ),
    "another size in the code": (
        file(f"openpi/{ROBOT_CONFIG}", worlds.ROBOTS.replace("dim=8", "dim=6").encode()),
        "statistics",
        "RDTL-D004",
        {},
    ),
    "no size in the code": (
        file(f"openpi/{ROBOT_CONFIG}", worlds.ROBOTS.replace("dim=8", "dim=None").encode()),
        "statistics",
        "RDTL-D005",
        {},
    ),
    "two statistics": (
        file(f"{STATISTICS}/dataset_statistics_old.json", JOINTS),
        "statistics",
        "RDTL-D003",
        {},
    ),
    "fewer steps": (nothing, "statistics", "RDTL-D006", {"statistics_steps": "66984"}),
    "path of another run": (
        file(f"{D}/../../../libero_object_wp_001/waypoint_indices.json", None),
        "config_check",
        "RDTL-B015",
        {},
    ),
    "other values": (nothing, "config_check", "RDTL-B007", {"batch": "160"}),
    "too many checkpoints": (nothing, "config_check", "RDTL-G001", {"checkpoint_gb": "9000"}),
    "out of memory": (training("out-of-memory"), "train", "RDTL-T007", {}),
    "illegal access": (training("illegal-access"), "train", "RDTL-T017", {}),
    "no kernel": (training("no-kernel"), "train", "RDTL-C015", {}),
    "other statistics": (training("statistics"), "train", "RDTL-D003", {}),
    "tensor does not fit": (training("weights"), "train", "RDTL-T020", {}),
    "weights missing": (training("weights-missing"), "train", "RDTL-T020", {}),
    "tokenizer lost": (
        file("cache/openpi/big_vision/paligemma_tokenizer.model", b""),
        "tokenizer" + PROOF,
        "RDTL-G017",
        {},
    ),
    "optimizer not saved": (no_optimizer, "train", "RDTL-T014", {}),
    "not a number": (training("nan"), "train", "RDTL-T018", {}),
    "other data": (training("data"), "train", "RDTL-B056", {}),
    "hangs": (training("hang"), "train", "RDTL-B053", {"start": "2s"}),
}
"""What is changed, which step meets it (or only its proof), the code, settings."""


EARLY = b"                if len(buffer) >= min(32, self.shuffle_buffer_size):\n"


@pytest.mark.slow
@pytest.mark.parametrize(("text", "told"), [(EARLY, ["RDTL-D024"]), (b"", [])])
def test_a_loader_that_never_mixes_is_told(
    text: bytes, told: list[str], box: Box, finished: Outcome
) -> None:
    """The line of the pinned program, where it stands in this checkout and where not."""
    with file("openpi/src/openpi/waypoint/ae_dataset.py", text)(box):
        outcome = box.fresh(box.only(["script"]))
    assert outcome.rc == 0
    assert [e["code"] for e in outcome.events if e["event"] == "signature"] == told
    box.fresh(box.only(["script"]))


QUICK = ("other GPU", "shard lost", "not a number")
"""All others cost a minute together."""


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in VARIANTS]
)
def test_a_failing_variant_is_explained(name: str, box: Box, finished: Outcome) -> None:
    change, step, code, settings = VARIANTS[name]
    proof = step.endswith(PROOF)
    step = step.removesuffix(PROOF)
    graph = box.only([step], **settings)
    if proof:
        steps = tuple(replace(s, argv=("true",), script="") for s in graph.steps)
        graph = replace(graph, steps=steps)
    with change(box):
        outcome = box.fresh(graph)
        found = {one.code for one in diagnose.diagnose(box.run_folder / "steps" / step)}
    assert outcome.rc == 1
    assert outcome.failure() == (step, code), outcome.events[-2]
    event = next(one for one in outcome.events if one["event"] == "step_fail")
    assert event["cause"] and event["fix"]
    if code not in ("RDTL-B053", "RDTL-B056"):  # which no line of a log says
        assert code in found
