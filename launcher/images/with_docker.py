"""Building with Docker: the image ends in the builder's engine, its record in the store."""

from __future__ import annotations

import json
from pathlib import Path

from launcher.core.node_facts import architecture
from launcher.images import render, tools
from launcher.images.order import Order, archive, arguments
from launcher.images.resolve import from_inspect, in_engine
from launcher.images.store import BuiltImage


def build(order: Order) -> BuiltImage:
    """The Docker image of an order; RdtlError RDTL-C019, C020, C028, C029 or G009."""
    tool = tools.docker_version(order.builder)
    text = render.dockerfile(order.definition, order.marks, order.download)
    base = order.base_identity()
    key = order.key(text, base, tool)

    def make(folder: Path) -> BuiltImage:
        log = folder / "build.log"
        order.say(f"building {order.name} with docker; log: {log}")
        context = order.write_context(folder.parent)
        (context / "Dockerfile").write_text(text, encoding="utf-8")
        name = f"rdtl/{order.name}:{key[:16]}"
        options = ["--tag", name, *arguments(KEY=key, ARCHITECTURE=architecture())]
        options += [*_base(order, base, log), *_secrets(order)]
        # The host's network: an engine need not have a bridge, and Apptainer uses it as well.
        options += ["--network", "host", "--progress", "plain"]
        argv = [order.builder.docker, "build", *options, "."]
        order.run(argv, tools.docker_environment(order.builder), log, context)
        return _inspect(order, name)

    def present(image: BuiltImage) -> bool:
        return in_engine(image, order.builder)

    return order.store.get_or_make(key, make, present, order.say)


def _inspect(order: Order, name: str) -> BuiltImage:
    argv = [order.builder.docker, "image", "inspect", name]
    answer = tools.ask(argv, tools.docker_environment(order.builder))
    assert answer is not None, f"the engine has lost {name}, which it has just built"
    return from_inspect(json.loads(answer)[0], name)


def _base(order: Order, base: str, log: Path) -> list[str]:
    """Options for the base: an archive is loaded and gets a name, because FROM takes no Id."""
    if not order.builder.base:
        return []
    name = f"rdtl/base:{base[:16]}"
    docker, environment = order.builder.docker, tools.docker_environment(order.builder)
    if tools.ask([docker, "image", "inspect", name], environment) is None:
        argv = [docker, "load", "--quiet", "--input", str(archive(order.builder.base))]
        order.run(argv, environment, log, log.parent)
        loaded = log.read_text(encoding="utf-8").splitlines()[-1]
        identity = loaded.partition(": ")[2]  # "Loaded image: NAME" or "Loaded image ID: sha256:…"
        order.run([docker, "tag", identity, name], environment, log, log.parent)
    return ["--build-arg", f"BASE={name}"]


def _secrets(order: Order) -> list[str]:
    """Secrets by path: BuildKit mounts them at /run/secrets/ID and keeps nothing."""
    found = order.builder.secrets().items()
    return [word for identity, path in found for word in ("--secret", f"id={identity},src={path}")]
