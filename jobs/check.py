"""Heavy checks: ``python -m jobs.check NAME [ARGUMENT…]`` prints one JSON document.

The last line of stdout is ``{"findings": [...]}`` or ``{"error": {...}}``; the
simulator's own chatter may come before it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from launcher.core.checks import Finding
from launcher.core.errors import RdtlError, file_system


def data(request: str) -> list[Finding]:
    """Read a data set as training would; ``request`` is a JSON object."""
    from rdt.data.checks import verify_set
    from rdt.data.declared import DeclaredSet
    from rdt.spec.contract import CONTRACTS

    asked = json.loads(request)
    statistics = Path(asked["statistics"]) if asked["statistics"] else None
    try:
        contract = CONTRACTS[asked["contract"]]
        return verify_set(DeclaredSet.of(asked), contract, statistics, asked["name"])
    except OSError as error:
        raise file_system(error, "a data set was being read") from error


def simulator() -> list[Finding]:
    """One golden frame and one settled scene (a few seconds)."""
    from rdt.sim.probe import probe

    return probe()


CHECKS: dict[str, Callable[..., list[Finding]]] = {"data": data, "simulator": simulator}


def main(argv: list[str]) -> int:
    """Run one check by name."""
    try:
        findings = CHECKS[argv[0]](*argv[1:])
    except RdtlError as error:
        print(json.dumps({"error": error.to_dict()}))
        return error.exit_status
    print(json.dumps({"findings": [finding.to_dict() for finding in findings]}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
