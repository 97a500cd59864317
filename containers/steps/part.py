"""Prints a part of a lock: ``part.py LOCK --only|--without NAME…``. Runs in the image's build."""

import re
import sys


def main() -> None:
    """Entries are requirement lines with their indented hashes."""
    lock, mode, *names = sys.argv[1:]
    with open(lock, encoding="utf-8") as handle:  # noqa: PTH123 - one line of reading
        entries = re.split(r"^(?=[A-Za-z0-9])", handle.read(), flags=re.MULTILINE)[1:]
    for entry in entries:
        if (entry.split("==")[0].strip().lower() in names) == (mode == "--only"):
            print(entry, end="")


if __name__ == "__main__":
    main()
