"""Building with Apptainer: from the definition's own file, or from a Docker image."""

from __future__ import annotations

import shutil
from pathlib import Path

from launcher.core import files
from launcher.core.node_facts import architecture
from launcher.images import render, selftest, tools
from launcher.images.order import Order, archive, archive_kind, arguments
from launcher.images.resolve import from_file, intact, require_lock
from launcher.images.store import BuiltImage

SQUASH = {"gzip": [], "zstd": ["-comp zstd -Xcompression-level 3"], "lz4": ["-comp lz4"]}


def build(order: Order) -> BuiltImage:
    """The SIF of an order, by Apptainer alone; RdtlError RDTL-C016, C018, C019, C028, C029 or
    G009.
    """
    tool = tools.apptainer_version(order.builder)
    text = render.apptainer(order.definition, order.marks, order.download)
    key = order.key(text, order.base_identity() + order.builder.compression, tool)

    def make(folder: Path) -> BuiltImage:
        order.say(f"building {order.name} with apptainer; log: {folder / 'build.log'}")
        context = order.write_context(folder.parent)
        options = ["--fakeroot"] if order.builder.fakeroot else []
        options += ["--bind", f"{_secrets(order, folder.parent)}:{render.APPTAINER_SECRETS}"]
        if order.download:
            options += ["--bind", f"{context / 'wheels'}:{render.APPTAINER_WHEELS}"]
        if order.builder.base:
            base = archive(order.builder.base)
            options += arguments(BOOTSTRAP=archive_kind(base), FROM=str(base))
        options += arguments(KEY=key, ARCHITECTURE=architecture())
        return _squash(order, text, key, options, folder, context)

    return order.store.get_or_make(key, make, intact, order.say)


def convert(order: Order, source: BuiltImage | Path) -> BuiltImage:
    """The SIF of a Docker image, or of an archive of one; nothing is installed again."""
    tool = tools.apptainer_version(order.builder)
    text = render.converted(order.definition)
    identity = source.sha256 if isinstance(source, BuiltImage) else files.sha256(source)
    key = order.key(text, identity + order.builder.compression, tool)

    def make(folder: Path) -> BuiltImage:
        order.say(f"converting {order.name} for apptainer; log: {folder / 'build.log'}")
        options: list[str] = []
        if isinstance(source, BuiltImage):
            where = folder.parent / "image.tar"
            argv = [order.builder.docker, "save", "--output", str(where), source.reference]
            environment = tools.docker_environment(order.builder)
            order.run(argv, environment, folder / "build.log", folder)
        else:
            options = arguments(BOOTSTRAP=archive_kind(source), FROM=str(source))
        return _squash(order, text, key, options, folder, folder.parent)

    return order.store.get_or_make(key, make, intact, order.say)


def _squash(
    order: Order, text: str, key: str, options: list[str], folder: Path, where: Path
) -> BuiltImage:
    """`apptainer build` in the directory ``where``; ``folder`` receives file and log."""
    (where / "image.def").write_text(text, encoding="utf-8")
    environment = tools.apptainer_environment()
    # Temporary root file systems are large, and a cache shared by builds has been seen to corrupt.
    for variable, name in (("TMPDIR", "tmp"), ("CACHEDIR", "cache")):
        (folder.parent / name).mkdir()
        environment[f"APPTAINER_{variable}"] = str(folder.parent / name)
    # Apptainer's own run of %test takes none of the options that this machine may need to start
    # an image; ours below starts it as jobs will be.
    argv = [order.builder.apptainer, "build", "--notest", *options]
    for squash in SQUASH[order.builder.compression]:
        argv += ["--mksquashfs-args", squash]
    log = folder / "build.log"
    order.run([*argv, str(folder / "image.sif"), "image.def"], environment, log, where)
    image = from_file(folder / "image.sif", key)
    require_lock(image, order.lock)
    order.say(f"testing {order.name}")
    lines = selftest.run(image, order.definition, order.builder)
    with log.open("a", encoding="utf-8") as handle:
        handle.write("\n".join(lines) + "\n")
    return image


def _secrets(order: Order, workspace: Path) -> Path:
    """A private directory with the secrets under the names that the steps look for."""
    folder = workspace / "secrets"
    folder.mkdir(mode=0o700)
    for identity, path in order.builder.secrets().items():
        shutil.copyfile(path, folder / identity)
    return folder
