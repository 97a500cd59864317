"""``python -m jobs.inspect_data REQUEST``: the work of ``rdtl data inspect``, where h5py is.

REQUEST is a JSON object; the last line of stdout is ``{"result": …}`` or ``{"error": …}``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from jobs.answer import answer
from jobs.statistics import set_name
from rdt.data import contact_sheet, inspection
from rdt.data.checks import verify_opened
from rdt.data.declared import DeclaredSet
from rdt.spec.contract import CONTRACTS


def look(request: dict[str, Any]) -> dict[str, Any]:
    """What is in the set, what verification finds, and pictures if they are wanted."""
    source, contract = DeclaredSet.of(request), CONTRACTS[request["contract"]]
    store = source.open()
    findings = verify_opened(store, source, contract)
    return {
        **inspection.describe(store),
        "name": set_name(source.path),
        "contract": contract.name,
        "findings": [finding.to_dict() for finding in findings],
        "sheets": contact_sheet.sheets(store) if request["pictures"] else [],
    }


def main(argv: list[str]) -> int:
    """Answer one request."""
    return answer(lambda: look(json.loads(argv[0])), "a data set was being read")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
