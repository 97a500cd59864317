"""What must not be read is not written: known secrets and everything that has the form of one.

Whole values and nothing less are replaced: a beginning of a key is already too much.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "[hidden]"
SHORTEST = 6
"""Shorter values would hide half of every line, and are no secrets."""
TOKENS = re.compile(
    r"\bwandb_v1_\w{20,}|\bhf_[A-Za-z0-9]{30,}\b|\bgh[opsu]_[A-Za-z0-9]{30,}\b"
    r"|\bgithub_pat_\w{20,}|\bya29\.[\w.-]{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|(?<=://)[^/\s:@\"']*:[^/\s@\"']+(?=@)"
)
"""What is a secret beyond doubt: whole keys of known services, an address with a password.

Who refuses takes these: `hf_datasets` is a folder.
"""
USER = re.compile(r"(?<=://)[^/\s@\"']+(?=@)")
"""A name in an address, which often is a token."""
FORMS = re.compile(
    rf"{TOKENS.pattern}|{USER.pattern}|wandb_v1_\w+|\bhf_\w{{8,}}|\bgh[opsu]_\w{{8,}}"
    r"|github_pat_\w+|ya29\.[\w.-]+"
)
"""What may be one, and is not shown: also the beginning of a key."""


class Redaction:
    """Replaces the values it was made with, their lines, and what looks like a key."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        texts = {part.strip() for value in values for part in (value, *value.splitlines())}
        longest_first = sorted((t for t in texts if len(t) >= SHORTEST), key=len, reverse=True)
        self.known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        if self.known:
            text = self.known.sub(HIDDEN, text)
        return FORMS.sub(HIDDEN, text)
