"""Numbers of recipes as people read them."""

from __future__ import annotations


def length(seconds: float) -> str:
    """A length of time: 0.4 s, 12 s, 3:05, 1:02:03."""
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
