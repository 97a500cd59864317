"""``python3 runner.pyz check NAME …``: the proofs that steps of recipes call on the machine.

Says on one line what was found, or how it is wrong as ``error RDTL-…`` with status 3, which
the runner and ``rdtl diagnose`` read. Standard library only, Python 3.10.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from launcher.core import box_files, box_machine, box_training
from launcher.core.errors import RdtlError


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("NAME=VALUE")
    return name, value


def _count(text: str) -> tuple[str, int]:
    name, value = _pair(text)
    return name, int(value)


def _shape(text: str) -> tuple[str, list[int]]:
    name, value = _pair(text)
    return name, [int(size) for size in value.split(",")]


def _statistics(a: argparse.Namespace) -> str:
    action, proprio = box_files.robot(a.source, a.robot)
    return box_files.statistics(a.file, action, proprio, a.steps or None)


def _of_files(add: Callable[..., argparse.ArgumentParser]) -> None:
    one = add("counts", lambda a: box_files.counts(a.folder, a.wanted, a.gb, a.code))
    one.add_argument("folder", type=Path)
    one.add_argument("wanted", type=_count, nargs="+", metavar="PATTERN=NUMBER")
    one.add_argument("--gb", type=float, default=0.0)
    one.add_argument("--code", default="RDTL-G002")
    one = add("safetensors", lambda a: box_files.safetensors(a.file, a.keys, a.shape))
    one.add_argument("file", type=Path)
    one.add_argument("--keys", type=int, required=True)
    one.add_argument("--shape", type=_shape, nargs="*", default=[], metavar="NAME=N,M")
    one = add("statistics", _statistics)
    one.add_argument("file", type=Path)
    one.add_argument("source", type=Path, metavar="ROBOT_CONFIG")
    one.add_argument("robot")
    one.add_argument("--steps", type=int, default=0)
    one = add("commit", lambda a: box_files.commit(a.folder, a.pin, a.has, a.contains))
    one.add_argument("folder", type=Path)
    one.add_argument("pin")
    one.add_argument("--has", nargs="*", default=[], metavar="FILE")
    one.add_argument("--contains", type=_pair, nargs="*", default=[], metavar="CODE=COMMIT")


def _of_machine(add: Callable[..., argparse.ArgumentParser]) -> None:
    one = add(
        "machine",
        lambda a: box_machine.machine(a.gpus, a.gpu, a.vram_gb, a.disk_gb, a.driver, a.folder),
    )
    one.add_argument("folder", type=Path)
    one.add_argument("--gpus", type=int, default=0)
    one.add_argument("--gpu", default="")
    one.add_argument("--vram-gb", type=float, default=0.0)
    one.add_argument("--disk-gb", type=float, default=0.0)
    one.add_argument("--driver", default="0")
    one = add("budget", lambda a: box_machine.budget(a.folder, a.held, a.checkpoints, a.gb))
    one.add_argument("folder", type=Path)
    one.add_argument("--held", type=Path, required=True)
    one.add_argument("--checkpoints", type=int, required=True)
    one.add_argument("--gb", type=float, required=True)
    one = add("packages", lambda a: box_machine.packages(a.code, a.python, a.wanted))
    one.add_argument("python", type=Path)
    one.add_argument("wanted", nargs="+", metavar="NAME==VERSION")
    one.add_argument("--code", required=True)
    one = add("toml", lambda a: box_machine.toml(a.file, a.key, a.text))
    one.add_argument("file", type=Path)
    one.add_argument("key")
    one.add_argument("text")
    one = add("overlay", lambda a: box_machine.overlay(a.source, a.target, apply=a.apply))
    one.add_argument("source", type=Path)
    one.add_argument("target", type=Path)
    one.add_argument("--apply", action="store_true")


def _of_training(add: Callable[..., argparse.ArgumentParser]) -> None:
    one = add("config", lambda a: box_training.config(a.file, a.wanted, a.paths))
    one.add_argument("file", type=Path)
    one.add_argument("wanted", type=_pair, nargs="*", metavar="KEY=VALUE")
    one.add_argument("--paths", nargs="*", default=[], metavar="KEY")
    one = add(
        "uploads", lambda a: box_training.uploads(a.folder, a.remote, a.keep, follow=a.follow)
    )
    one.add_argument("folder", type=Path)
    one.add_argument("remote")
    one.add_argument("--keep", type=int, required=True)
    one.add_argument("--follow", action="store_true")
    one = add("newest", lambda a: box_training.newest(a.folder, a.remote))
    one.add_argument("folder", type=Path)
    one.add_argument("remote")


def parser() -> argparse.ArgumentParser:
    """All checks and their options."""
    whole = argparse.ArgumentParser(prog="check", description=__doc__)
    names = whole.add_subparsers(required=True, metavar="NAME")

    def add(name: str, run: Callable[[argparse.Namespace], str]) -> argparse.ArgumentParser:
        one = names.add_parser(name)
        one.set_defaults(run=run)
        return one

    for group in (_of_files, _of_machine, _of_training):
        group(add)
    return whole


def main(argv: list[str]) -> int:
    """Run one check."""
    options = parser().parse_args(argv)
    try:
        print(options.run(options), flush=True)
    except RdtlError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
