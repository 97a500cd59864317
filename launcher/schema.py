"""The configuration model: every key a user may write, its default and its meaning.

One model serves ``rdtl demo``, ``train`` and ``evaluate``; a command asks for
the sections that it needs. Jobs never see these classes: they read the resolved
configuration as JSON (no pydantic inside images). Unknown keys are refused.
The string under each field is its documentation.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from launcher.schema_base import Positive, Section
from launcher.schema_train import Train
from rdt.spec import loss, recipe
from rdt.spec.contract import CONTRACTS


def _some_states(value: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= value[0] < value[1]:
        raise ValueError("0 <= first < end is wanted")
    return value


Range = Annotated[
    tuple[int, int],
    AfterValidator(_some_states),
    Field(description="[first, end): end is not included"),
]
PolicyName = Literal["rdt", "server", "expert", "zero", "replay"]


class Task(Section):
    """Which simulated task."""

    suite: str = "libero_object"
    """LIBERO suite: libero_object, libero_spatial, libero_goal, libero_10, libero_90."""
    task_id: Annotated[int, Field(ge=0)] = 0
    """Index of the task inside the suite."""
    wide_mm: Annotated[int, Field(ge=0, le=80)] = 0
    """Shift target and goal at random by up to this many millimetres (0: LIBERO as it is)."""
    camera_size: Literal[64, 128, 256] = 128
    """Width and height of each camera picture in pixels, in the data and in the evaluation."""
    settle_steps: Annotated[int, Field(ge=0)] = 10
    """Control steps with a zero action (gripper open) after each reset."""
    max_steps: Positive | None = None
    """Control steps of an episode after settling; unset: the suite's published limit (spatial
    220, object 280, goal 300, 10 520, 90 400)."""
    env_seed: int = 7
    """Seed of the simulator's fixture placement, set before every reset."""


class Collect(Section):
    """Demonstrations by the scripted expert."""

    demos: Positive = 24
    """Successful demonstrations to write."""
    init_states: Range = (0, 30)
    """Initial states to use, in order; keep them apart from evaluate.init_states."""
    noise: Annotated[float, Field(ge=0, le=0.5)] = 0.25
    """Two standard deviations of the noise on executed translation, in action units; the label
    stays clean."""
    render_every: Positive = 3
    """Render every n-th control step; the steps between carry no picture and are no samples."""
    shards: Positive = 2
    """Array tasks."""


class Evaluate(Section):
    """Episodes to run and how; together with the task this is the protocol."""

    policies: list[PolicyName] = ["rdt", "expert", "zero", "replay"]
    """rdt: the trained policy. server: the one behind `server`. expert, zero, replay: references
    in the same table."""
    suites: dict[str, list[Annotated[int, Field(ge=0)]]] = {}
    """Suites and numbers of their tasks, `[]` for all: `{libero_goal: [], libero_10: [0, 3]}`.
    Empty: the one task of the section `task`."""
    checkpoint: str | None = None
    """A run, a checkpoint's directory (step_000500), a file of weights or a hub id; unset: the
    run's own."""
    weights: Literal["auto", "ema", "raw"] = "auto"
    """Which copy of the weights: auto takes the average (EMA) where it is float32."""
    contract: str | None = None
    """Contract under which adopted weights are read instead of their card's; unset: the card's."""
    vision: str | None = None
    """SigLIP of a policy without an encoder of its own: its folder; unset: the public one, from the
    hub's cache."""
    language: str | None = None
    """T5 of such a policy, or a folder of embeddings (`rdtl data embed`); unset: as with vision."""
    policy_memory_mb: Positive | None = None
    """Memory for the policy in each task; unset: 400, and for a checkpoint that lies here 4 bytes a
    weight and SigLIP."""
    server: str | None = None
    """Address of a policy server, ws://HOST:PORT (or wss://): one of openpi's, or `rdtl serve`."""
    server_token: str | None = None
    """File with the token that the server wants."""
    demonstrations: str | None = None
    """LIBERO HDF5 file, or a folder of them, from which `replay` takes one demonstration of each
    task; unset: the run's own."""
    init_states: Range = (30, 50)
    """Initial states to evaluate on."""
    trials: Positive = 1
    """Episodes per initial state. With `reset: exact` they begin in one scene and differ by a
    network's noise alone: they are no further initial states."""
    reset: Literal["exact", "openvla-sequential"] = "exact"
    """exact: every episode finds the scene that the seed gives. openvla-sequential: the seed is
    set once a task and the furniture drifts from reset to reset, as in published evaluations."""
    execution_horizon: Positive = 8
    """Actions of each chunk that are executed before the policy is asked again."""
    policy_seed: int = 0
    """Seed of the sampling noise; an episode's noise depends on this, its key and the query."""
    episode_minutes: Annotated[float, Field(gt=0)] = 30
    """An episode that takes longer by the clock ends as `timeout` and is tried again. While the
    job is suspended the clock stands."""
    workers: Positive = 1
    """Processes of each task that run episodes. Several share one policy: a task starts a policy
    server on each of its GPUs, or one on the CPU."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of each task, a policy server on each; 0: the policy computes on the CPU."""
    batching: Literal["fixed", "free"] = "fixed"
    """What such a server computes together. fixed: `rows` requests, and an answer depends on its
    request alone. free: what is there; the report says how often answers are the same."""
    rows: Positive = 1
    """Rows of a fixed batch; the last bits of an answer depend on it, in every process alike."""
    shards: Positive | Literal["auto"] = 4
    """Array tasks. auto: as many as the episodes' seconds and the site ask for. It may be changed
    when the evaluation was interrupted: what has a result is kept."""
    episode_seconds: Annotated[float, Field(gt=0)] | None = None
    """Seconds of an episode for `auto`, as an earlier report says; unset: estimated."""
    videos: Annotated[int, Field(ge=0)] = 6
    """Episodes of each of `video_outcomes` that are replayed as video, spread over the tasks."""
    video_outcomes: list[Literal["success", "fail"]] = ["fail"]
    """Which episodes of the policy under test get a video."""

    @property
    def shares_policy(self) -> bool:
        """Whether the policy of a task is computed in servers of its own."""
        return self.workers > 1 or self.gpus > 0

    @field_validator("server")
    @classmethod
    def _server_is_an_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if "@" in value:
            raise ValueError("plans and records repeat it, so no name or password: server_token")
        address = urlsplit(value)
        if address.scheme not in ("ws", "wss") or not address.hostname:
            raise ValueError("write the address as ws://HOST:PORT or wss://HOST:PORT")
        return value

    @model_validator(mode="after")
    def _one_policy_under_test(self) -> Evaluate:
        if {"rdt", "server"} <= set(self.policies):
            raise ValueError("rdt and server are two policies under test; evaluate them one by one")
        if "rdt" not in self.policies and (self.gpus or self.batching == "free"):
            raise ValueError("gpus and batching are for the policy rdt, which is not evaluated")
        if self.workers < self.gpus or (self.batching == "free" and not self.shares_policy):
            raise ValueError("batches need several workers: set workers, at least one for each GPU")
        if ("server" in self.policies) != (self.server is not None):
            raise ValueError(
                "policies names `server` exactly when server: ws://HOST:PORT is set; "
                "with --policy ws://HOST:PORT leave both out, it sets them"
            )
        return self


class Sweep(Section):
    """Which combinations `rdtl sweep` runs, on the episodes of the section `evaluate`."""

    checkpoints: list[str] = []
    """As evaluate.checkpoint, several; empty: that one."""
    horizons: Annotated[list[Positive], Field(min_length=1)] = [8, 12, 16, 20, 64]
    """Execution horizons."""
    contracts: list[str] = []
    """How the numbers of adopted weights are read; empty: as their card says."""
    keep_above: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Below this best success rate the verdict is to train again rather than to tune."""


class DataSet(Section):
    """Demonstrations from outside: where they lie, which of them, and what is declared of them."""

    path: str
    """LIBERO HDF5 file or folder, or the folder of an RLDS or LeRobot set."""
    tasks: list[str] = []
    """Only these tasks, by name or in words; empty: all."""
    demos: list[int | str] = []
    """Only these demonstrations of each task, by number or name; empty: all. One: [0]."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How often an epoch shows each sample: 2 twice, 0.5 every other epoch."""
    gripper_open: Literal[-1, 1] = -1
    """The sign of the gripper's command that opens it."""
    alignment: Literal["before", "after"] | None = None
    """Whether a row holds what was observed before or after its action; unset: as the layout has
    it."""


class Dataset(Section):
    """Which demonstrations to learn from and what their numbers mean."""

    contract: Literal["libero-velocity"] = "libero-velocity"
    """How states and actions map into the 128 unified slots."""
    order: Literal["enumerate", "random"] = "enumerate"
    """enumerate: an epoch shows every sample; random: draws with replacement, 63 % of them."""
    sets: list[DataSet] = []
    """Demonstrations from outside; empty: those that the run itself collects."""
    held_out: Annotated[float, Field(ge=0)] = 0
    """Demonstrations that are not learned from but validated on: their number, or below 1 their
    share; chosen by the seed."""
    buffer: str | None = None
    """Folder that `rdtl data buffer` keeps filled with samples of these sets; unset: training
    reads the sets themselves."""


class Upload(Section):
    """Results that leave while the run goes on: checkpoints, policy, records, logs."""

    uri: str
    """Where they go: gs://, s3://, rclone:REMOTE:PATH, hf://, ssh:// or file://; a folder of the
    run's name is made there."""
    every_seconds: Annotated[float, Field(gt=0)] = 60
    """How often what grows is uploaded; checkpoints go as soon as they are whole."""
    delete: bool = False
    """Delete checkpoints here once they are proven to be there; the newest stays, and what
    train.keep_every and keep_best keep."""


class RunConfig(Section):
    """The whole configuration; a command refuses one that lacks the sections it needs."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    """Name of the run; its directory is runs/NAME-SITE."""
    seed: int = recipe.SEED
    """Seed of collection noise, data order, initial weights and diffusion noise."""
    task: Task = Task()
    collect: Collect | None = None
    dataset: Dataset = Dataset()
    train: Train | None = None
    evaluate: Evaluate | None = None
    sweep: Sweep | None = None
    upload: Upload | None = None

    @model_validator(mode="after")
    def _training_fits_its_data(self) -> RunConfig:
        if self.train:
            contract = CONTRACTS[self.dataset.contract]
            loss.slot_weights(contract, self.train.loss, self.train.loss_weights)
            recipe.require_validation(self.train.model_dump(), self.dataset.model_dump())
        return self
