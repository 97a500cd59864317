"""``config.json`` of an RDT checkpoint: the reference's flat form, checked on reading.

A network is always built from the checkpoint's own config.json, never from a
training configuration: sizes that do not match load half of a network or none.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from launcher.core.errors import RefusedError
from rdt.diffusion import TRAIN_STEPS, Target

NOISE_SCHEDULER = {
    "type": "ddpm",
    "num_train_timesteps": 1000,
    "num_inference_timesteps": 5,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "sample",
    "clip_sample": False,
}
CHOICES = {"prediction_type": get_args(Target)}
EMA = {
    "update_after_step": 0,
    "inv_gamma": 1.0,
    "power": 0.75,
    "min_value": 0.0,
    "max_value": 0.9999,
}


@dataclass(frozen=True)
class RdtConfig:
    """Sizes of an RDT; field names are those of config.json.

    Widths are numbers of features, lengths numbers of tokens. A position config is
    ``[[modality, length or grid]]`` (a negative length: no position inside) or None.
    """

    action_dim: int
    pred_horizon: int
    rdt: dict[str, Any]
    lang_token_dim: int
    img_token_dim: int
    state_token_dim: int
    max_lang_cond_len: int
    img_cond_len: int
    lang_pos_embed_config: list | None
    img_pos_embed_config: list | None
    lang_adaptor: str = "mlp2x_gelu"
    img_adaptor: str = "mlp2x_gelu"
    state_adaptor: str = "mlp3x_gelu"
    noise_scheduler: dict[str, Any] = field(default_factory=lambda: dict(NOISE_SCHEDULER))
    ema: dict[str, Any] = field(default_factory=lambda: dict(EMA))

    @property
    def hidden_size(self) -> int:
        return int(self.rdt["hidden_size"])

    @property
    def depth(self) -> int:
        return int(self.rdt["depth"])

    @property
    def num_heads(self) -> int:
        return int(self.rdt["num_heads"])

    @property
    def sampling_steps(self) -> int:
        return int(self.noise_scheduler["num_inference_timesteps"])

    @property
    def prediction_type(self) -> Target:
        """What the network says: the clean actions or the noise."""
        kind: Target = self.noise_scheduler["prediction_type"]
        return kind

    @property
    def picture_slots(self) -> int:
        """Pictures that the network looks at: moments times cameras, 1 without such a grid."""
        grids = [axes for _, axes in self.img_pos_embed_config or []]
        if len(grids) != 1 or isinstance(grids[0], int):
            return 1
        return math.prod(abs(length) for length in grids[0][:-1])

    @property
    def picture_tokens(self) -> int:
        """Tokens of one picture."""
        return self.img_cond_len // self.picture_slots

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; :func:`parse` is its inverse."""
        return asdict(self)


def parse(data: dict[str, Any], where: str) -> RdtConfig:
    """Read the flat JSON form; ``where`` names the file in errors.

    Raises RefusedError RDTL-T021 for a missing or unknown field, another noise
    schedule or another prediction target than the one implemented.
    """
    names = set(RdtConfig.__dataclass_fields__)
    for name in sorted(names - set(data)):
        _refuse(where, name, "absent", "every field of the reference's config.json")
    for name in sorted(set(data) - names):
        _refuse(where, name, data[name], "no such field: the reference's config.json has none")
    for name in ("rdt", "noise_scheduler"):
        if not isinstance(data[name], dict):
            _refuse(where, name, data[name], "an object")
    for name in ("hidden_size", "depth", "num_heads"):
        if type(found := data["rdt"].get(name)) is not int or found < 1:
            _refuse(where, f"rdt.{name}", found, "a whole number from 1")
    config = RdtConfig(**data)
    _require_schedule(config.noise_scheduler, where)
    return config


def _require_schedule(schedule: dict[str, Any], where: str) -> None:
    for name, value in NOISE_SCHEDULER.items():
        found = schedule.get(name)
        choices = CHOICES.get(name, (value,))
        if name == "num_inference_timesteps":
            if type(found) is not int or not 1 <= found < TRAIN_STEPS:
                expected = f"a whole number from 1 to {TRAIN_STEPS - 1}"
                _refuse(where, f"noise_scheduler.{name}", found, expected)
        elif found not in choices:
            _refuse(where, f"noise_scheduler.{name}", found, " or ".join(map(repr, choices)))


def _refuse(where: str, name: str, found: object, expected: str) -> None:
    raise RefusedError(
        "RDTL-T021",
        f"the network configuration does not fit in {name}",
        where=f"{where}: {name} = {found!r}; expected {expected}",
        why="another size or another diffusion target gives another network",
        fix="use the config.json that was saved with the weights",
    )
