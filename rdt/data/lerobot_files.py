"""Files of a LeRobot data set: what is missing or damaged becomes an error that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from launcher.core.errors import RdtlError, RefusedError
from rdt.data.finding import may_not_be_read


@contextmanager
def coded(path: Path) -> Iterator[None]:
    """Turn what pyarrow and JSON throw at a damaged file into RdtlError RDTL-D013."""
    try:
        yield
    except FileNotFoundError as error:
        raise RdtlError(
            "RDTL-D014",
            "a file of a LeRobot data set is missing",
            where=str(error.filename or path),
            why="the description of the data set names it",
            fix="copy the data set again",
        ) from error
    except PermissionError as error:
        raise may_not_be_read(path, error) from error
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, MemoryError) as error:
        raise unreadable(path, f"{type(error).__name__}: {str(error).strip()[:200]}") from error


def unreadable(path: Path, why: str) -> RdtlError:
    """The error for a file that is there and says what cannot be."""
    return RdtlError(
        "RDTL-D013",
        "a file of a LeRobot data set is not whole",
        where=f"{path}: {why}",
        why="reading on would train on rubbish",
        fix="copy this file again from its source; it was left as it is",
    )


def missing_column(path: Path, column: str, found: list[str]) -> RdtlError:
    """The error for a parquet file without a column that the layout has."""
    return RefusedError(
        "RDTL-D014",
        f"a file of a LeRobot data set has no column {column}",
        where=f"{path}; it has {', '.join(found)[:400]}",
        why="the numbers of the episodes stand there",
        fix="use a copy of LIBERO in LeRobot's layout, version 2 or 3",
    )


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, each an object; raises what :func:`coded` does."""
    with coded(path):
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.strip()]
