"""Where the weights of a checkpoint lie, in every layout that is met.

========================  =======================================================
reference folder          config.json, model.safetensors or pytorch_model.bin
policy folder             the same with card.json; also inside a run directory
DeepSpeed checkpoint      config.json, pytorch_model.bin,
                          pytorch_model/mp_rank_00_model_states.pt,
                          ema/model.safetensors
a file of any of these    config.json is looked for in the folders above it
hub id                    ``owner/name``, downloaded or from the cache
========================  =======================================================
"""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from launcher.core.errors import RefusedError, RemoteError, UsageError
from rdt.spec import card as cards

CONFIG, WEIGHTS, PICKLED = "config.json", "model.safetensors", "pytorch_model.bin"
SHARED = "mp_rank_00_model_states.pt"
SHARD = "zero_pp_rank_0_mp_rank_00_model_states.pt"
PARTS = "model-*-of-*.safetensors"
EMA = "ema"
LEVELS_UP = 3
"""How far above the weights config.json may lie: checkpoint-N/ema/model.safetensors needs one."""


class Copy(NamedTuple):
    """One file of weights: "raw" as trained, or "ema", their average."""

    path: Path
    weights: str
    layout: str


def copies(source: str | Path) -> list[Copy]:
    """Every copy of the weights that ``source`` (path or hub id) offers, raw first.

    Raises UsageError RDTL-T034 when there is none, RefusedError RDTL-T033 for shards of
    ZeRO-3, RemoteError RDTL-T036 when a hub id cannot be had.
    """
    path = Path(source).absolute()
    if path.is_file():
        return [Copy(path, _kind(path), _layout(path))]
    if path.is_dir() and source != "":
        return _in_folder(path)
    is_name = isinstance(source, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", source)
    if is_name and not path.parent.exists():  # in a folder that is here, a typing error
        return [copy._replace(layout="hub") for copy in _in_folder(_snapshot(source))]
    raise UsageError(
        "RDTL-T034",
        "there is no checkpoint of that name",
        where=str(source) or "an empty name",
        why="it is neither a folder nor a file here, nor a hub id (owner/name, no folder owner "
        "being here)",
        fix="name a folder with config.json and weights, a file of weights, or a hub id",
    )


def config_of(path: Path) -> Path:
    """The config.json nearest above a file of weights, for a link also above its target.

    Raises UsageError RDTL-T034 when there is none.
    """
    folders = list(dict.fromkeys([*path.parents[:LEVELS_UP], *path.resolve().parents[:LEVELS_UP]]))
    for folder in folders:
        if (folder / CONFIG).is_file():
            return folder / CONFIG
    raise UsageError(
        "RDTL-T034",
        "the weights have no config.json",
        where=f"{path}: looked in {', '.join(map(str, folders))}",
        why="a network is built from its own config.json, never from assumed sizes",
        fix=f"put the config.json that was saved with these weights into {folders[0]}",
    )


def _in_folder(folder: Path) -> list[Copy]:
    inner = folder / "policy"
    if not (folder / CONFIG).is_file() and (inner / CONFIG).is_file():
        folder = inner
    if kept := _kept(folder):
        return [
            Copy(kept[kind], kind, _layout(kept[kind])) for kind in ("raw", "ema") if kind in kept
        ]
    shards = sorted([*folder.glob(SHARD), *folder.glob(f"*/{SHARD}")])
    if shards:
        raise sharded(shards[0])
    if steps := list(folder.glob(f"checkpoints/step_*/policy/{CONFIG}")):
        newest = max((path.parent.parent for path in steps), key=lambda s: (len(s.name), s.name))
        raise UsageError(
            "RDTL-T034",
            "the training of this run has not ended, so it has no policy yet",
            where=str(folder),
            why="a checkpoint in the middle is not taken for the result unless you name it",
            fix=f"name one: {newest}, or rdtl runs resume {folder}",
        )
    parts = sorted(folder.glob(PARTS))
    raise UsageError(
        "RDTL-T034",
        "this folder holds no weights",
        where=f"{folder}: none of {WEIGHTS}, {PICKLED}, */{SHARED}, {EMA}/{WEIGHTS}",
        why="a network is filled from one whole file of weights",
        fix=f"join {len(parts)} parts ({parts[0].name}, …) into {WEIGHTS}: load all with "
        "safetensors.torch.load_file into one dict and save that with save_file"
        if parts
        else "name the folder in which config.json and the weights lie",
    )


def preferred(path: Path) -> Path | None:
    """The file that stands for the folder of ``path`` in its stead, None when ``path`` does."""
    kept = _kept(path.parent)
    return None if path in kept.values() else kept.get(_kind(path))


def _kept(folder: Path) -> dict[str, Path]:
    """The best file of each kind; of two formats of the same weights, one is read."""
    found = [*_raw(folder), *(folder / EMA / name for name in (WEIGHTS, PICKLED))]
    return {_kind(path): path for path in reversed(found) if path.is_file()}


def _raw(folder: Path) -> list[Path]:
    """Files that hold the weights themselves, the best first."""
    inside = [folder / SHARED, *sorted(folder.glob(f"*/{SHARED}"))]
    return [folder / WEIGHTS, folder / PICKLED, *inside]


def _kind(path: Path) -> str:
    """A card says which copy it is; without one the folder's name does."""
    if (path.parent / cards.FILE).is_file():
        return cards.read(path.parent).weights
    return "ema" if path.parent.name == EMA else "raw"


def _layout(path: Path) -> str:
    folder = path.parent.parent if path.parent.name == EMA else path.parent
    if path.name == SHARED or list(folder.glob(f"*/{SHARED}")):
        return "deepspeed"
    with_card = path.name == WEIGHTS and (path.parent / cards.FILE).is_file()
    return "policy" if with_card else "reference"


def sharded(path: Path) -> RefusedError:
    """The error for weights that ZeRO-3 left divided among the ranks."""
    folder = path.parent.parent if path.name == SHARD else path.parent
    return RefusedError(
        "RDTL-T033",
        "the weights are divided among the ranks (ZeRO-3)",
        where=str(path),
        why="no file holds the whole network",
        fix=f"{_merging(folder)} && cp {quote(f'{folder}/{CONFIG}')} {quote(f'{folder}/whole/')}"
        f", then name {folder}/whole",
    )


def _merging(folder: Path) -> str:
    """The shell command for DeepSpeed's script; before 0.15 it took a file as its output."""
    script, whole = folder / "zero_to_fp32.py", f"{folder}/whole"
    text = script.read_text(errors="replace") if script.is_file() else ""
    program = f"python {quote(str(script))}" if text else "python -m deepspeed.utils.zero_to_fp32"
    if text and "--safe_serialization" not in text:
        out = quote(f"{whole}/{PICKLED}")
        return f"mkdir -p {quote(whole)} && {program} {quote(str(folder))} {out}"
    return f"{program} --safe_serialization {quote(str(folder))} {quote(whole)}"


def _snapshot(name: str) -> Path:
    """Folder of a hub repository with config.json and one format of weights."""
    from huggingface_hub import snapshot_download  # slow to import, and seldom needed

    small = [CONFIG, cards.FILE, WEIGHTS, f"{EMA}/{WEIGHTS}"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=small))
        if not (folder / WEIGHTS).is_file():
            folder = Path(snapshot_download(name, allow_patterns=[*small, PICKLED]))
    except Exception as error:  # its client passes on errors of several libraries
        raise RemoteError(
            "RDTL-T036",
            "the checkpoint is neither here nor to be had from the hub",
            where=f"{name}: {type(error).__name__}: {str(error).strip().splitlines()[0]}",
            why="no such folder exists here, so the name was taken for a hub id",
            fix=f"check the name; on a node without network download it first: hf download {name}",
        ) from error
    return folder
