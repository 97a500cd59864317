"""What Slurm's programs print, as data. Pure functions; no formats but documented ones.

Only outputs with a format of our own choosing (``squeue --format``, ``sinfo --format``,
``--parsable2``) or of key=value pairs (``scontrol show``) are read: prose and column
widths change between versions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

QUEUE_FORMAT = "--format=%F|%K|%T|%r|%j"
NODES_FORMAT = "--format=%R|%D|%c|%m|%G"
UNLIMITED = {"UNLIMITED", "INFINITE", "NONE", "N/A", "(NULL)", ""}


@dataclass(frozen=True)
class Row:
    """A line of squeue: a job, or those tasks of an array that share state and reason."""

    job: str
    tasks: int
    state: str
    reason: str
    name: str


@dataclass(frozen=True)
class NodeKind:
    """Equal nodes of one partition: how many, and what each offers (memory in MB)."""

    partition: str
    nodes: int
    cpus: int
    memory_mb: int
    gpus: int


def queue(text: str) -> list[Row]:
    """Rows of ``squeue --noheader`` with QUEUE_FORMAT; a job name may hold the separator."""
    lines = [line.split("|", 4) for line in text.splitlines()]
    return [Row(p[0], count_tasks(p[1]), p[2], p[3], p[4]) for p in lines if len(p) == 5]


def count_tasks(expression: str) -> int:
    """Tasks of an array expression: ``3``, ``0-7``, ``1,5-9%2``, ``0-8:2``; ``N/A`` is a job."""
    total = 0
    for span in expression.partition("%")[0].split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", span.strip())
        if found is None:
            return max(1, total)  # N/A, or cut short by an old squeue
        first, last, step = (int(x) if x else None for x in found.groups())
        total += len(range(first or 0, (last if last is not None else first or 0) + 1, step or 1))
    return total


def key_values(text: str) -> dict[str, str]:
    """``scontrol show config``: one ``Key = value`` a line."""
    pairs = (re.match(r"\s*([A-Za-z_]\w*)\s*=\s*(.*?)\s*$", line) for line in text.splitlines())
    return {found[1]: found[2] for found in pairs if found}


def partitions(text: str) -> dict[str, dict[str, str]]:
    """``scontrol show partition``: key=value words, a block a partition, by partition name."""
    found: dict[str, dict[str, str]] = {}
    for block in re.split(r"(?=^PartitionName=)", text, flags=re.MULTILINE):
        words = dict(re.findall(r"(\w+)=(\S*)", block))
        if "PartitionName" in words:
            found[words["PartitionName"]] = words
    return found


def nodes(text: str) -> list[NodeKind]:
    """``sinfo --exact --noheader`` with NODES_FORMAT; ``4+`` (mixed, old versions) counts as 4."""
    found = []
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) == 5:
            count, cpus, memory = (int(re.match(r"\d*", p.strip())[0] or 0) for p in parts[1:4])  # type: ignore[index]
            found.append(NodeKind(parts[0].strip(), count, cpus, memory, gpus(parts[4])))
    return found


def gpus(gres: str) -> int:
    """GPUs of a GRES expression: ``gpu:2``, ``gpu:a100:8(S:0-1),nvme:1``, ``(null)``."""
    words = re.sub(r"\([^)]*\)", "", gres).split(",")
    counts = [
        re.search(r":(\d+)$", word.strip()) for word in words if word.strip().startswith("gpu")
    ]
    return sum(int(found[1]) if found else 1 for found in counts)


def minutes(text: str) -> int | None:
    """A time limit in whole minutes, None for unlimited: ``D-HH:MM:SS``, ``D-HH``, ``HH:MM:SS``,
    ``MM:SS``, ``MM``. Seconds are cut off."""
    text = text.strip()
    if text.upper() in UNLIMITED:
        return None
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, mins = [*parts, 0][:2]
        return int(days) * 1440 + hours * 60 + mins
    return parts[0] * 60 + parts[1] if len(parts) == 3 else parts[0]


def number(text: str) -> int | None:
    """The number at the start of ``10 sec``, ``1001``; None when there is none (unlimited)."""
    found = re.match(r"\s*(\d+)", text)
    return int(found[1]) if found else None


def table(text: str) -> list[dict[str, str]]:
    """``--parsable2`` output with its header: a dictionary a row, keys in lower case."""
    lines = [line.split("|") for line in text.splitlines() if line]
    if not lines:
        return []
    head = [name.lower() for name in lines[0]]
    return [dict(zip(head, line, strict=False)) for line in lines[1:]]
