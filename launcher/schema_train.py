"""The sections of training: what is learned, how, and how it is divided among ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from launcher.schema_base import Positive, Section, Share
from rdt.spec import deepspeed as deepspeed_settings
from rdt.spec import recipe


class Model(Section):
    """Size of the RDT network and of the vision encoder that is trained with it."""

    hidden: Positive = 128
    """Width of the transformer."""
    depth: Positive = 4
    """Number of blocks; even blocks look at language, odd ones at the pictures."""
    heads: Positive = 4
    """Attention heads."""
    horizon: Positive = 16
    """Actions in a chunk."""
    vision_hidden: Positive = 128
    """Width of the vision transformer."""
    vision_depth: Positive = 2
    """Blocks of the vision transformer."""
    patch: Positive = 32
    """Patch size of the vision transformer in pixels."""
    sampling_steps: Positive = 5
    """Denoising steps when an action chunk is sampled."""


class Lora(Section):
    """Sizes of an adapter on every linear layer of the transformer and the adaptors."""

    rank: Positive = 32
    """Rank of the factors."""
    alpha: Positive = 64
    """Their product counts alpha / rank."""
    dropout: Share = 0.1
    """Share of their inputs that is dropped in training."""


class Train(Section):
    """DeepSpeed fine-tuning."""

    steps: Positive | None = None
    """Optimizer steps; unset, and epochs too: 2400."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Length in passes over the data instead; rounded up to whole optimizer steps."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Wall-clock budget; measured once, turned into `steps`, and only then written to run.yaml."""
    nodes: Positive = 1
    """Nodes of the job (the site may change it)."""
    ranks_per_node: Positive = 2
    """Processes per node; with `device: gpu` each has one GPU."""
    memory_gb: Annotated[float, Field(gt=0)] = 1.4
    """Memory of a rank in GB that is asked for, and as much again for a node; what the demo's
    network needs."""
    device: Literal["cpu", "gpu"] = "cpu"
    """What the ranks compute on."""
    micro_batch: Positive | None = None
    """Samples per rank and micro step; unset: what fits the other two, 8 at most."""
    accumulation: Positive | None = None
    """Micro steps per optimizer step; unset: what fits the other two."""
    effective_batch: Positive | None = None
    """micro_batch x accumulation x ranks; unset: their product, or 16 when one of them is unset,
    too. Where it is given, another number of nodes changes the accumulation instead."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate of AdamW."""
    schedule: Literal["cosine", "constant", "linear"] = "cosine"
    """Learning rate after the warm-up: down to 0 at the end along a cosine or a line, or level."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Optimizer steps of linear warm-up, under every schedule."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """AdamW weight decay."""
    gradient_clipping: Annotated[float, Field(gt=0)] = 1.0
    """Global gradient norm; handed to DeepSpeed, which is what applies it."""
    noise_draws: Positive = 2
    """Diffusion noise draws per encoded picture."""
    image_shift_px: Annotated[int, Field(ge=0)] = 0
    """Random shift augmentation, pixels."""
    augmentation: Share = 0.0
    """Share of pictures that are changed in colour, blurred or noised (the reference: 0.5)."""
    condition_dropout: Share = 0.0
    """How often each condition is left out, independently: state, mask, rate, words and every
    picture (the reference: 0.1)."""
    external_camera_dropout: Share | None = None
    """The same for pictures of the first camera; unset: as for the others."""
    state_noise_db: float | None = None
    """Signal to noise ratio of noise on the state, by each episode's spread (the reference: 40)."""
    loss: Literal["valid", "all"] = "valid"
    """valid: the squared error over the slots of the contract's mask; all: over all 128, most of
    which are always 0, as the reference has it."""
    loss_weights: dict[str, Annotated[float, Field(ge=0)]] = {}  # noqa: RUF012  pydantic copies it
    """Weights in the loss by the contract's groups, for example
    `{"end-effector linear velocity": 2}`; 1 where nothing is said."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage: divided are 1 the optimizer, 2 also gradients, 3 also weights."""
    offload: bool = False
    """Keep the optimizer state in memory of the CPU and compute its step there."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Weights in training; with bf16 the optimizer keeps float32 master weights."""
    deepspeed: dict[str, Any] | None = None
    """Your own DeepSpeed JSON (path or content), added to ours; contradictions are refused."""
    ema_power: Annotated[float, Field(gt=0)] = 0.75
    """Power of the EMA warm-up, 1 - (1 + step) ** -power; the average is kept in float32."""
    checkpoint_every: Positive = 500
    """Optimizer steps between checkpoints."""
    keep_checkpoints: Positive = 2
    """Complete checkpoints to keep, the newest ones."""
    keep_every: Positive | None = None
    """Keep also every checkpoint whose step is a multiple of this."""
    keep_best: Literal["validation_loss", "success"] | None = None
    """Keep also the checkpoint with the best value of this metric; with `validation_loss`,
    checkpoint_every has to be a multiple of validate_every."""
    validate_every: Positive | None = None
    """Optimizer steps between rounds of sampling and validation, one step later than its multiples
    so as not to meet a checkpoint; unset: none but a last one if something is held out."""
    validation_batches: Positive = 2
    """Effective batches that a round looks at, the same each time."""
    early_stopping: Positive | None = None
    """Rounds without a lower validation loss after which training ends; unset: never."""
    first_loss: tuple[float, float] | None = None
    """What the loss of the first step should lie between; said when it does not."""
    stall_minutes: Annotated[float, Field(gt=0)] = 30.0
    """Time without a step after which the job ends and says where it stands."""
    log_every: Positive = 20
    """Optimizer steps between lines of the loss record."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Weights & Biases mode; `online` takes its key from the environment, never from here."""
    wandb_project: str = "rdt-launcher"
    """Project of Weights & Biases."""
    wandb_entity: str | None = None
    """User or team of Weights & Biases; unset: that of the key."""
    checkpoint: str | None = None
    """What to begin with: a checkpoint of ours or a public one, as a path or a hub id; unset:
    fresh weights of the size `model`."""
    vision: str | None = None
    """SigLIP for a checkpoint that does not see by itself, folder or hub id; unset: the public
    one."""
    language: str | None = None
    """Instructions encoded beforehand (`rdtl data embed`) for such a checkpoint, a folder."""
    lora: Lora | None = None
    """Train small factors beside frozen weights; `{}` takes the defaults; unset: all weights."""
    gradient_checkpointing: bool = False
    """Compute blocks twice instead of keeping what is inside them: less memory, a third more
    time."""
    model: Model = Model()
    """Network size."""

    @field_validator("deepspeed", mode="before")
    @classmethod
    def _from_file(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(Path(value).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"no JSON can be read from {value}: {error}") from error

    @model_validator(mode="after")
    def _recipe_agrees(self) -> Train:
        """Fill in what is derived; whatever contradicts is refused here, before anything starts."""
        ranks = self.nodes * self.ranks_per_node
        sizes = recipe.sizes(self.micro_batch, self.accumulation, self.effective_batch, ranks)
        derived = {
            "micro_batch": sizes.micro,
            "accumulation": sizes.accumulation,
            "effective_batch": sizes.effective,
        }
        if self.steps is None and self.epochs is None:
            derived["steps"] = recipe.STEPS
        self.__dict__.update(derived)  # the section is frozen for everybody else
        values = self.model_dump()
        recipe.require_length(values)
        recipe.require_base(values)
        deepspeed_settings.config(values)
        return self
