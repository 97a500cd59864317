"""Images through a registry, addressed by content: what is pulled is what was pushed."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path

from launcher.core import files
from launcher.core.errors import RdtlError, UsageError
from launcher.images import tools
from launcher.images.builder import Builder
from launcher.images.errors import build_failed
from launcher.images.resolve import from_file, from_inspect, in_engine, verify
from launcher.images.store import BuiltImage, Store

SIF_REFERENCE = re.compile(r"oras://\S+:sha256-([0-9a-f]{64})")
DOCKER_REFERENCE = re.compile(r"\S+@sha256:[0-9a-f]{64}")


def push(image: BuiltImage, repository: str, builder: Builder) -> str:
    """Send a built image to ``repository`` (HOST/PATH without tag); returns what `pull` takes.

    Raises RdtlError RDTL-C025 for a changed SIF, RDTL-C028 when the tool fails.
    """
    repository = repository.removeprefix("oras://").removeprefix("docker://")
    if image.kind == "docker":
        return _push_docker(image, repository, builder)
    verify(image, full=True)
    target = f"oras://{repository}:sha256-{image.sha256}"
    argv = [builder.apptainer, "push", *_plain_http(repository), image.reference, target]
    _run(argv, tools.apptainer_environment(), builder)
    return target


def pull(reference: str, builder: Builder) -> BuiltImage:
    """Fetch what `push` printed into the store (SIF) or the engine (Docker), once.

    Raises UsageError RDTL-C024 for a reference that does not name its content,
    RdtlError RDTL-C025 when the content is another, RDTL-C028 when the tool fails.
    """
    store = Store(builder.cache_directory())
    key = hashlib.sha256(f"pulled\0{reference}".encode()).hexdigest()
    if match := SIF_REFERENCE.fullmatch(reference):
        return store.get_or_make(key, lambda to: _pull_sif(reference, match[1], key, to, builder))
    if DOCKER_REFERENCE.fullmatch(reference):
        return store.get_or_make(
            key,
            lambda to: _pull_docker(reference, key, to, builder),
            lambda image: in_engine(image, builder),
        )
    raise UsageError(
        "RDTL-C024",
        "the reference does not say what it holds",
        where=reference,
        why="a tag can be moved; a digest cannot",
        fix="REPOSITORY@sha256:… for docker, oras://REPOSITORY:sha256-… for apptainer; "
        "`rdtl image push` prints it",
    )


def _push_docker(image: BuiltImage, repository: str, builder: Builder) -> str:
    tools.docker_version(builder)
    environment = tools.docker_environment(builder)
    tagged = f"{repository}:{image.key[:16] or image.sha256[:16]}"
    _run([builder.docker, "tag", f"sha256:{image.sha256}", tagged], environment, builder)
    _run([builder.docker, "push", tagged], environment, builder)
    argv = [builder.docker, "image", "inspect", "--format", "{{json .RepoDigests}}", tagged]
    digests = json.loads(tools.ask(argv, environment) or "[]")
    ours = [digest for digest in digests if digest.startswith(f"{repository}@")]
    if not ours:
        raise RdtlError("RDTL-C028", "the registry gave no digest", where=tagged)
    return str(ours[-1])


def _pull_sif(reference: str, sha256: str, key: str, folder: Path, builder: Builder) -> BuiltImage:
    path = folder / "image.sif"
    environment = tools.apptainer_environment()
    # A cache that several pulls share has been seen to corrupt; the store is our cache.
    argv = [builder.apptainer, "pull", "--disable-cache", *_plain_http(reference)]
    _run([*argv, str(path), reference], environment, builder, folder / "build.log")
    image = from_file(path, key)
    if image.sha256 != sha256:
        raise RdtlError(
            "RDTL-C025",
            "the registry sent another file than the reference names",
            where=f"{reference}: SHA-256 is {image.sha256}",
            why="it was changed after it was pushed, or on the way",
            fix="push it again from where it was built",
        )
    return image


def _pull_docker(reference: str, key: str, folder: Path, builder: Builder) -> BuiltImage:
    tools.docker_version(builder)
    environment = tools.docker_environment(builder)
    _run([builder.docker, "pull", reference], environment, builder, folder / "build.log")
    answer = tools.ask([builder.docker, "image", "inspect", reference], environment)
    assert answer is not None, f"the engine has lost {reference}, which it has just pulled"
    return replace(from_inspect(json.loads(answer)[0], reference), key=key)


def _plain_http(reference: str) -> list[str]:
    """--no-https for a registry on this machine; every other one must have a certificate."""
    host = reference.removeprefix("oras://").partition("/")[0].partition(":")[0]
    return ["--no-https"] if host in ("localhost", "127.0.0.1") else []


def _run(
    argv: list[str], environment: dict[str, str], builder: Builder, log: Path | None = None
) -> None:
    """Run a tool; when it fails its log is kept as STORE/failed/transfer.log."""
    with tempfile.TemporaryDirectory(prefix="rdtl-") as folder:
        log = log or Path(folder, "log")
        status = tools.run_logged(argv, environment, log, tools.Redaction(builder), log.parent)
        if status != 0:
            kept = builder.cache_directory() / "failed" / "transfer.log"
            files.write_text(kept, log.read_text(encoding="utf-8"))
            raise build_failed(" ".join(argv[:2]), status, kept)
