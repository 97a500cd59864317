"""One episode of a policy: receding horizon, pictures only where the policy looks."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RdtlError
from rdt.policy.policy import EpisodeError, Observation, Policy
from rdt.sim.libero import Simulator
from rdt.spec.record import EpisodeKey


class OverdueError(Exception):
    """The episode took longer, by the clock, than an episode may."""


class PolicyError(Exception):
    """The policy raised or answered with something that is no chunk of actions."""


@dataclass(frozen=True)
class Outcome:
    """Result of an episode; ``actions`` (T, 7) float32 are those executed after settling."""

    success: bool
    actions: NDArray[np.float32]
    queries: int
    renders: int
    wall_s: float
    policy_s: float
    fixtures_sha256: str
    state_sha256: str

    @property
    def actions_sha256(self) -> str:
        """Digest of the bytes of the executed actions."""
        return actions_digest(self.actions)


def actions_digest(actions: NDArray[np.float32]) -> str:
    """sha256 of the bytes of (T, 7) float32 actions."""
    return hashlib.sha256(np.ascontiguousarray(actions, np.float32).tobytes()).hexdigest()


def run_episode(
    simulator: Simulator,
    policy: Policy,
    key: EpisodeKey,
    execution_horizon: int,
    seconds: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Reset to ``key.init_state`` and let ``policy`` act until success or ``max_steps``.

    The first ``execution_horizon`` actions of each chunk are executed; success is the
    simulator's ``done`` at any step. Raises PolicyError for the policy's faults,
    OverdueError when it is not over after ``seconds`` of ``clock``, RdtlError unchanged, and
    whatever the simulator raises.
    """
    started, began = time.perf_counter(), clock()
    simulator.reset(key.init_state)
    asked = _Asked(policy, simulator, key)
    limit = simulator.task["max_steps"]
    executed: list[NDArray[np.float32]] = []
    success = False
    while not success and len(executed) < limit:
        if clock() - began > seconds:
            raise OverdueError(f"not over after {seconds:g} s, at step {len(executed)}")
        chunk = asked.chunk(simulator.observation())[:execution_horizon]
        chunk = chunk[: limit - len(executed)]
        ends = len(executed) + len(chunk) == limit  # then nobody looks at where it leads
        for left, action in zip(range(len(chunk) - 1, -1, -1), chunk, strict=True):
            executed.append(action)
            looks = policy.sees and not ends and left <= int(policy.sees_previous)
            success = simulator.step(action, render=looks)
            if success:
                break
    return Outcome(
        success=success,
        actions=np.stack(executed),
        queries=asked.queries,
        renders=simulator.renders,
        wall_s=time.perf_counter() - started,
        policy_s=asked.seconds,
        fixtures_sha256=simulator.fixtures_sha256,
        state_sha256=simulator.state_sha256(),
    )


class _Asked:
    """A policy with its queries counted, timed and checked."""

    def __init__(self, policy: Policy, simulator: Simulator, key: EpisodeKey) -> None:
        self.queries = 0
        self.seconds = 0.0
        self._policy = policy
        try:
            policy.begin(simulator, key)
        except RdtlError:
            raise
        except Exception as error:
            raise PolicyError(f"begin: {type(error).__name__}: {error}") from error

    def chunk(self, observation: Observation) -> NDArray[np.float32]:
        """The next chunk (n, 7), n >= 1, finite."""
        started = time.perf_counter()
        try:
            chunk = np.asarray(self._policy.chunk(observation, self.queries), np.float32)
        except EpisodeError as error:
            problem = error.problem
            said = f"{problem.code}: {problem.what} ({problem.where}). {problem.fix}"
            raise PolicyError(f"query {self.queries}: {said}") from error
        except RdtlError:  # says already what to do, and no other episode would fare better
            raise
        except Exception as error:
            raise PolicyError(f"query {self.queries}: {type(error).__name__}: {error}") from error
        self.seconds += time.perf_counter() - started
        if chunk.ndim != 2 or chunk.shape[1] != 7 or not len(chunk) or not np.isfinite(chunk).all():
            raise PolicyError(f"query {self.queries}: no finite (n, 7) actions: {chunk.shape}")
        self.queries += 1
        return chunk
