"""Sentences through the text encoder, once, into a folder that policies read.

A file is named after the digest of its words and of its encoder, and written whole; the
list (:mod:`rdt.encoders.manifest`) follows file by file. So a kill at any moment loses one
sentence, and the next call computes only what is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from launcher.core import files
from launcher.core.errors import RefusedError
from rdt.encoders import language, manifest
from rdt.encoders.embeddings import plain
from rdt.encoders.manifest import Manifest

DTYPE = torch.bfloat16  # as the public embeddings are
DECIDING = (
    *("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "feed_forward_proj"),
    *("relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon"),
)


class Made(NamedTuple):
    """How many sentences were wanted and how many of them computed now."""

    wanted: int
    computed: int
    encoder: dict[str, Any]


def embed(instructions: Iterable[str], encoder: str, folder: Path) -> Made:
    """Make the embeddings of ``instructions`` by a T5 (folder or hub id) that are missing.

    Without missing ones and with the same encoder files nothing is loaded. Raises
    RefusedError RDTL-D076 when another or an unknown encoder made what is there, RDTL-D077
    when another process writes there, and what :func:`rdt.encoders.language.load_t5` raises.
    """
    wanted = {plain(text): language.sentence(plain(text)) for text in instructions}
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        listed = manifest.read(folder)
        if listed is None and (strange := sorted(folder.rglob("*.pt"))):
            raise _another(folder, f"{strange[0].name} is there, and no {manifest.FILE}")
        known = _describe(encoder)
        same = listed is not None and bool(known) and listed.encoder["files"] == known
        if listed and same and not _missing(listed, folder, wanted):
            return Made(len(wanted), 0, listed.encoder)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        t5 = language.load_t5(encoder, DTYPE, device)
        listed = _of_encoder(listed, folder, _identity(t5, encoder))
        missing = _missing(listed, folder, wanted)
        for instruction in missing:
            _make(t5, listed, folder, instruction, wanted[instruction])
        return Made(len(wanted), len(missing), listed.encoder)


def _of_encoder(listed: Manifest | None, folder: Path, encoder: dict[str, Any]) -> Manifest:
    """The list to go on with, on disk before any file is."""
    if listed and listed.encoder["digest"] != encoder["digest"]:
        made = f"{listed.encoder['source']} ({listed.encoder['digest'][:12]})"
        here = f"{encoder['source']} ({encoder['digest'][:12]})"
        raise _another(folder, f"made by {made}, asked for {here}")
    found = Manifest(encoder, listed.sentences if listed else {})
    found.write(folder)
    return found


def _missing(listed: Manifest, folder: Path, wanted: Iterable[str]) -> list[str]:
    """Instructions without an intact file."""

    def intact(instruction: str) -> bool:
        try:
            return instruction in listed.sentences and bool(listed.path(folder, instruction))
        except RefusedError:
            return False

    return [instruction for instruction in wanted if not intact(instruction)]


def _make(t5: language.T5, listed: Manifest, folder: Path, instruction: str, words: str) -> None:
    """Compute, publish and list one sentence."""
    tokens = t5.tokens(instruction).to("cpu", DTYPE)
    content = {
        "name": instruction.replace(" ", "_"),
        "instruction": instruction,
        "embeddings": tokens[None].clone(),
    }
    buffer = io.BytesIO()  # saved to a path, the archive would hold that path's name
    torch.save(content, buffer)
    address = hashlib.sha256(f"{listed.encoder['digest']}\n{words}".encode()).hexdigest()
    path = folder / f"{address[:32]}.pt"
    with files.whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    listed.sentences[instruction] = {
        "sentence": words,
        "file": path.name,
        "sha256": manifest.sha256(path),
        "tokens": len(tokens),
    }
    listed.write(folder)


def _identity(t5: language.T5, source: str) -> dict[str, Any]:
    """The encoder as the manifest names it; the digest is over weights, sizes and vocabulary."""
    sizes = {name: getattr(t5.model.config, name) for name in DECIDING}
    vocabulary = sorted(t5.tokenizer.get_vocab().items())
    digest = hashlib.sha256(json.dumps([sizes, vocabulary]).encode())
    for name, tensor in sorted(t5.model.named_parameters()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return {
        "source": source,
        "digest": digest.hexdigest(),
        "width": t5.model.config.d_model,
        "dtype": str(DTYPE).removeprefix("torch."),
        "files": _describe(source),
    }


def _describe(source: str) -> list[list[Any]]:
    """Name, size and mtime of each file of an encoder that lies on this machine, else nothing."""
    folder = Path(source) if Path(source).is_dir() else _cached(source)
    if folder is None:
        return []
    stats = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def _cached(hub_id: str) -> Path | None:
    """The folder of a hub id that was fetched earlier."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(hub_id, "config.json")
    except HFValidationError:
        return None  # no hub id either: loading it says so
    return Path(found).parent if isinstance(found, str) else None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out; one that is killed frees the lock."""
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError(
                "RDTL-D077",
                "another process makes embeddings in this folder",
                where=str(folder),
                why="both would write its list",
                fix="wait until it has ended, then give the command again: what is there is kept",
            ) from error
        yield


def _another(folder: Path, reason: str) -> RefusedError:
    return RefusedError(
        "RDTL-D076",
        "another encoder made the embeddings that are there",
        where=f"{folder}: {reason}",
        why="tokens of two encoders have nothing in common but their width",
        fix="name another --out, or the encoder that made them",
    )
