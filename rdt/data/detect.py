"""What the numbers of a data set say of themselves, beside what is declared of them.

Alignment and unit come from one regression: each step's move of the hand, explained by
the commands around it. A command moves the hand in its own step and in some later ones,
never in an earlier one, so the latest command that counts tells which row it belongs to.
(The single best correlation does not: the arm lags, and it lies a step late.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdt.data import rotations
from rdt.data.store import EpisodeStore

LAGS = (2, 1, 0, -1, -2, -3)  # command t + lag, for the move from row t to row t + 1
RAW_GAIN = 0.0115  # m per step at |a| = 1 held, measured with LIBERO's controller
EXPLAINED = 0.3  # share of the moves that commands must explain before they tell anything
FINGER_STEPS = 4  # control steps in which the fingers visibly answer their command
ROWS = 2000  # rotations compared with the quaternion, evenly over the set
FORMS = {"axis-angle": rotations.axis_angle_to_6d, "euler": rotations.euler_to_6d}
Moves = Callable[[slice], NDArray[np.float64]]


@dataclass(frozen=True)
class Verdict:
    """``declared`` and ``found`` in the same words; ``found`` is "unclear" without evidence."""

    what: str
    declared: str
    found: str
    evidence: str

    @property
    def contradicts(self) -> bool:
        return self.found not in (self.declared, "unclear")


@dataclass(frozen=True)
class Response:
    """How the hand answers: ``gains`` in m per step and unit, one per lag, and the share of
    the moves that they explain."""

    gains: NDArray[np.float64]
    explained: float

    @property
    def clear(self) -> bool:
        return self.explained > EXPLAINED and bool(self.gains.max() > 0)

    @property
    def latest(self) -> int:
        """The lag of the latest command that counts."""
        return LAGS[int(np.argmax(self.gains > 0.5 * self.gains.max()))]


def response(store: EpisodeStore) -> Response:
    """How the hand's position answers the translation commands."""
    position = np.asarray(store.robot.eef_pos, np.float64)
    return _answers(store, slice(0, 3), lambda rows: np.diff(position[rows], axis=0))


def _answers(store: EpisodeStore, commands: slice, moves: Moves) -> Response:
    """Least squares over all episodes and three axes, in the memory of one episode.

    ``moves`` (T - 1, 3) of an episode's rows, from each row to the next.
    """
    ahead, behind = max(LAGS), -min(LAGS)
    products, moments, total = np.zeros((len(LAGS), len(LAGS))), np.zeros(len(LAGS)), 0.0
    for rows in _episodes(store):
        moved = moves(rows)
        actions = store.actions[rows, commands].astype(np.float64)
        t = np.arange(behind, len(moved) - ahead + 1)
        if len(t) == 0:
            continue
        near = np.stack([actions[t + lag] for lag in LAGS])
        products += np.einsum("ita,jta->ij", near, near)
        moments += np.einsum("ita,ta->i", near, moved[t])
        total += float((moved[t] ** 2).sum())
    gains = np.linalg.lstsq(products, moments)[0]
    return Response(gains, float(gains @ moments) / total if total else 0.0)


def _episodes(store: EpisodeStore) -> Iterator[slice]:
    for start, end in zip(store.starts.tolist(), store.ends.tolist(), strict=True):
        yield slice(start, end)


def alignment(store: EpisodeStore, answer: Response) -> Verdict:
    """Whether rows hold what was observed before or after their command."""
    declared = store.conventions.alignment
    shown = ", ".join(
        f"{gain * 1000:+.1f}" for lag, gain in zip(LAGS, answer.gains, strict=True) if lag < 2
    )
    evidence = f"mm per step for the next, this and earlier commands as read: {shown}"
    if not answer.clear:
        why = f"commands explain {answer.explained:.0%} of the hand's moves"
        return Verdict("alignment", declared, "unclear", why)
    behind = int(declared == "after") + answer.latest
    found = {0: "before", 1: "after"}.get(behind, f"{abs(behind)} steps away")
    return Verdict("alignment", declared, found, evidence)


def action_unit(store: EpisodeStore, answer: Response) -> Verdict:
    """LIBERO's raw numbers in [-1, 1], or metres, centimetres, something else."""
    largest = np.abs(store.actions[:, :6]).max(axis=0)
    evidence = f"largest |action|: {', '.join(f'{x:.3g}' for x in largest)}"
    gain = float(answer.gains.sum()) / RAW_GAIN if answer.clear else None
    if gain is not None:
        evidence += f"; one unit moves the hand {gain:.2g} times as far as in LIBERO"
    if largest.max() > 1 + 1e-6:
        found = "beyond [-1, 1]: centimetres, or not scaled"
    elif gain is None:
        found = "metres" if 0 < largest[:3].max() <= 0.05 else "unclear"
    elif 0.4 < gain < 2.5:
        found = "raw"
    else:
        found = "metres" if gain > 8 else "another scale"
    return Verdict("unit of the actions", "raw", found, evidence)


def gripper(store: EpisodeStore) -> list[Verdict]:
    """Which sign opens the fingers, in each episode, and whether commands are signs at all.

    Only moments count in which the fingers really move under a steady command: most of the
    time they rest, open or on an object, whatever the command says.
    """
    command = store.actions[:, 6].astype(np.float64)
    fingers = np.asarray(store.robot.gripper_qpos, np.float64)
    low, high = float(command.min()), float(command.max())
    span = "-1 … 1" if low < 0 < high or low == high else f"{low:.2g} … {high:.2g}"
    declared = store.conventions.gripper_open
    votes = [
        _votes(np.sign(command[rows] - (low + high) / 2), fingers[rows, 0] - fingers[rows, 1])
        for rows in _episodes(store)
    ]
    told = [(number, vote) for number, vote in enumerate(votes) if abs(vote) > 0.5]
    against = [store.episodes[number] for number, vote in told if vote > 0]
    agreement = float(np.mean([vote for _, vote in told])) if told else 0.0
    evidence = (
        f"commands and opening agree by {agreement:+.2f} as read (-1 is right), in "
        f"{len(told)} of {len(votes)} episodes the fingers tell"
    )
    if against:
        names = ", ".join(f"{e.file.name}: {e.name}" for e in against[:3])
        evidence += f", {len(against)} contradict ({names}{', …' if len(against) > 3 else ''})"
    opens = -declared if against else declared
    found = f"{opens:+d} opens" if told else "unclear"
    if against and len(against) < len(told):
        found = "both signs open"
    return [
        Verdict("gripper", f"{declared:+d} opens", found, evidence),
        Verdict("range of the gripper", "-1 … 1", span, f"{low:.3g} … {high:.3g}"),
    ]


def _votes(command: NDArray[np.float64], width: NDArray[np.float64]) -> float:
    """Mean product of a steady command's sign and the change of the width; 0: no move."""
    later = width[FINGER_STEPS:] - width[:-FINGER_STEPS]
    steady = (command[:-FINGER_STEPS] == command[FINGER_STEPS:]) & (command[:-FINGER_STEPS] != 0)
    moving = steady & (np.abs(later) > max(0.25 * np.abs(later).max(initial=0.0), 1e-3))
    if not moving.any():
        return 0.0
    return float(np.mean(command[:-FINGER_STEPS][moving] * np.sign(later[moving])))


def rotation(store: EpisodeStore) -> Verdict:
    """The form of the hand's rotation: the one that agrees with the recorded quaternion, or
    else the one in which the hand turns as it is told to."""
    if store.quaternion is None or not store.quaternion.any(axis=1).all():
        return _rotation_by_commands(store)  # zeros stand for "not recorded"
    rows = np.unique(np.linspace(0, len(store) - 1, ROWS).astype(int))
    recorded = np.asarray(store.robot.axis_angle, np.float64)[rows]
    right = np.stack([rotations.quat_to_axis_angle(q) for q in store.quaternion[rows]])
    truth = rotations.axis_angle_to_6d(right)
    off = {form: float(np.abs(read(recorded) - truth).max()) for form, read in FORMS.items()}
    best = min(off, key=lambda form: off[form])
    evidence = f"off from the quaternion in {len(rows)} rows: "
    evidence += ", ".join(f"as {form} {x:.2g}" for form, x in off.items())
    found = best if off[best] < 1e-3 else "neither axis-angle nor euler"
    return Verdict("rotation", "axis-angle", found, evidence)


def _rotation_by_commands(store: EpisodeStore) -> Verdict:
    angles = np.asarray(store.robot.axis_angle, np.float64)
    shares = {
        form: _answers(
            store, slice(3, 6), lambda rows, read=read: rotations.turns(read(angles[rows]))
        ).explained
        for form, read in FORMS.items()
    }
    best, other = sorted(shares, key=lambda form: -shares[form])
    clear = shares[best] > max(EXPLAINED, 2 * shares[other])
    evidence = "commands explain " + ", ".join(
        f"{share:.0%} of the turns as {form}" for form, share in shares.items()
    )
    return Verdict("rotation", "axis-angle", best if clear else "unclear", evidence)


def detect(store: EpisodeStore) -> list[Verdict]:
    """All verdicts; needs finite numbers."""
    answer = response(store)
    return [
        action_unit(store, answer),
        alignment(store, answer),
        *gripper(store),
        rotation(store),
    ]
