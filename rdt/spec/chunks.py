"""How much of a chunk is executed before the policy looks again."""

from __future__ import annotations

from launcher.core.checks import Finding
from launcher.core.errors import UsageError
from rdt.spec.protocol import Protocol


def require(executed: int, chunk: int, where: str) -> None:
    """Raise UsageError RDTL-E074 when more actions shall be executed than a chunk has."""
    if executed > chunk:
        raise UsageError(
            "RDTL-E074",
            f"{executed} actions of each chunk shall be executed, but a chunk has {chunk}",
            where=f"evaluate.execution_horizon, {where}",
            why="the protocol would name a horizon that was never executed",
            fix=f"--set evaluate.execution_horizon={max(1, chunk // 4)}",
        )


def replanning(executed: int, chunk: int, where: str) -> list[Finding]:
    """A warning RDTL-E022 when more than half of each chunk is executed without a look.

    Published policies execute between a quarter and a half; the end of a chunk was predicted
    from a scene that no longer is.
    """
    if chunk < 2 or executed * 2 <= chunk:
        return []
    advised, seconds = max(1, chunk // 4), executed / Protocol.control_hz
    tried = ",".join(map(str, sorted({max(1, chunk // 8), advised, chunk // 2})))
    return [
        Finding(
            "RDTL-E022",
            "warning",
            f"{executed} of the {chunk} actions of each chunk are executed before the policy "
            "looks again",
            where=f"evaluate.execution_horizon = {executed}, {where}",
            why=f"it acts blindly for {seconds:.1f} s at a time: what went wrong meanwhile is "
            "corrected late or never",
            fix=f"--set evaluate.execution_horizon={advised}, or measure it: rdtl sweep … "
            f"--horizons {tried}",
        )
    ]
