"""Building: a definition and a builder become an image in the store."""

from __future__ import annotations

from launcher.core.errors import UsageError
from launcher.images import lock_checks, render, with_apptainer, with_docker
from launcher.images.builder import Builder
from launcher.images.definition import load
from launcher.images.order import Order, Say, archive
from launcher.images.store import BuiltImage, Kind


def build(name: str, kind: Kind, source: str | None, builder: Builder, say: Say) -> BuiltImage:
    """Build image ``name``, or find it when nothing that goes in has changed.

    ``source`` is for kind apptainer: None runs the definition's own file, "docker" converts the
    Docker image of the same name (building it if need be), a path converts that archive.
    Raises UsageError RDTL-U001, U002, C005–C014 or C024; RdtlError RDTL-C016, C018–C020, C027–C029
    or G009.
    """
    order = Order(name, *load(name), builder, say)
    _refuse_unfit(order)
    if kind == "docker":
        return with_docker.build(order)
    if source is None:
        return with_apptainer.build(order)
    origin = with_docker.build(order) if source == "docker" else archive(source)
    return with_apptainer.convert(order, origin)


def rendered(name: str, kind: Kind, builder: Builder) -> str:
    """The Dockerfile or Apptainer definition file that :func:`build` would use."""
    order = Order(name, *load(name), builder, print)
    form = render.dockerfile if kind == "docker" else render.apptainer
    return form(order.definition, order.marks, order.download)


def _refuse_unfit(order: Order) -> None:
    """UsageError with the first finding about the lock: cheaper now than after the download."""
    lock, gpu = order.lock, order.definition.gpu
    for finding in lock_checks.check(str(lock.path), lock.text, lock.packages(), gpu=gpu):
        raise UsageError(
            finding.code, finding.what, where=finding.where, why=finding.why, fix=finding.fix
        )
