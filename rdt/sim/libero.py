"""One LIBERO task as a deterministic function: reset to an initial state, step, observe."""

from __future__ import annotations

import contextlib
import gc
import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import UsageError
from rdt.policy.policy import Observation
from rdt.sim import backend, plus, wide
from rdt.sim.kept import KeptScene
from rdt.sim.lazy import LazyCameras
from rdt.sim.tasks import find_task
from rdt.spec import suites
from rdt.spec.protocol import CAMERAS, SETTLE_ACTION

UNSTABLE = ("mjWARN_BADQPOS", "mjWARN_BADQVEL", "mjWARN_BADQACC", "mjWARN_BADCTRL")
SENSORS = {"agentview": "agentview", "eye_in_hand": "robot0_eye_in_hand"}


class Simulator:
    """A simulated task. ``task`` is the configuration's section of that name.

    Every :meth:`reset` clears LIBERO's growing list of initialisers, seeds, rebuilds
    the scene, sets the initial state and settles, so that an episode depends on
    nothing that happened before it. ``blind`` builds no renderer at all.

    ``renders`` counts pictures since the last reset; ``fixtures_sha256`` tells
    whether two episodes saw the same furniture.
    """

    def __init__(
        self, task: dict[str, Any], blind: bool, cameras: tuple[str, ...] = CAMERAS
    ) -> None:
        wide.require_supported(task["suite"], task["wide_mm"])
        self.info = find_task(task["suite"], task["task_id"])
        self.task = {**task, "max_steps": suites.max_steps(task["suite"], task["max_steps"])}
        self.cameras = () if blind else cameras
        self.fixtures_sha256 = ""
        self._lazy = LazyCameras(task["camera_size"])
        self._raw: dict[str, Any] = {}
        self._fresh = False
        self._previous: dict[str, NDArray[np.uint8]] | None = None
        # robosuite collects garbage at every reset: what is loaded by now need not be walked again.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        with backend.quiet(), backend.gl_errors():
            self.env = self._build()
        self._noisy = getattr(self.env, "severity", 0) > 0
        self._lazy.attach(self.env.env)
        self._scene = KeptScene(self.env.env)

    def _build(self) -> Any:
        from libero.libero.envs.env_wrapper import ControlEnv

        make = plus.build if self.task["suite"] in suites.PLUS else ControlEnv
        seeing, size = bool(self.cameras), self.task["camera_size"]
        return make(
            bddl_file_name=str(self.info.bddl),
            use_camera_obs=seeing,
            has_offscreen_renderer=seeing,
            camera_names=[SENSORS[name] for name in self.cameras] or ["agentview"],
            camera_heights=size,
            camera_widths=size,
            ignore_done=True,  # robosuite's own limit of 1,000 steps; ours is task.max_steps
        )

    @property
    def renders(self) -> int:
        """Pictures rendered since the last reset."""
        return self._lazy.rendered

    def reset(self, init_state: int) -> None:
        """Put the task into initial state ``init_state`` and settle.

        The picture that follows is rendered unless the simulator is blind.
        Raises UsageError RDTL-U021 when LIBERO has no such initial state.
        """
        if not 0 <= init_state < len(self.info.init_states):
            raise UsageError(
                "RDTL-U021",
                f"initial state {init_state} does not exist",
                where="collect.init_states or evaluate.init_states",
                why=f"{self.info.name} has {len(self.info.init_states)} initial states",
                fix="choose a range inside them",
            )
        with backend.quiet(), backend.gl_errors():
            self._seed()
            self._rebuild()
        self._lazy.rendered = 0
        state = self.info.init_states[init_state]
        if self.task["wide_mm"]:
            state = wide.widened(
                self.env, state, self.task["wide_mm"], seed=(self.task["env_seed"], init_state)
            )
        self._settle(state)

    def _seed(self) -> None:
        self.env.env.object_property_initializers.clear()
        self.env.seed(self.task["env_seed"])

    def _rebuild(self) -> None:
        from robosuite.utils.errors import RandomizationError

        inner = self.env.env
        self._scene.before_reset()
        while True:  # LIBERO's own loop swallows every exception, Ctrl-C among them
            try:
                inner.reset()
                break
            except RandomizationError:
                continue
        poses = np.concatenate([inner.sim.model.body_pos, inner.sim.model.body_quat], axis=1)
        self.fixtures_sha256 = hashlib.sha256(poses.tobytes()).hexdigest()

    def _settle(self, state: NDArray[np.float64]) -> None:
        steps, seeing = self.task["settle_steps"], bool(self.cameras)
        self._previous = None
        self._lazy.wanted = self._fresh = seeing and steps == 0
        # The solver starts from its last answer, which the state does not hold: building a
        # renderer changes it, and a blind episode would differ from a seeing one by 1e-14.
        self.env.sim.data._data.qacc_warmstart[:] = 0
        self._raw = self.env.set_init_state(state)
        self._lazy.wanted = False
        for step in range(steps):
            self.step(np.asarray(SETTLE_ACTION, np.float32), seeing and step == steps - 1)

    def step(self, action: NDArray[np.float32], render: bool = False) -> bool:
        """Execute ``action`` (7,) in [-1, 1] for one control step of 50 ms.

        Returns whether the task's goal holds. ``render`` makes the next
        :meth:`observation` carry pictures. Raises ValueError for an action that is
        not finite or a picture asked of a blind simulator, RuntimeError when the
        physics became unstable.
        """
        if not np.all(np.isfinite(action)):
            raise ValueError(f"the action is not finite: {action}")
        if render and not self.cameras:
            raise ValueError("a blind simulator has no pictures")
        before = self._lazy.rendered
        self._previous = self._pictures() if self._fresh else None
        self._lazy.wanted = render
        noisy = render and self._noisy
        with plus.noise(self.env, self.state()) if noisy else contextlib.nullcontext():
            self._raw, _, done, _ = self.env.step(np.asarray(action, np.float32).astype(np.float64))
        self._lazy.wanted = False
        self._fresh = render
        if render and self._lazy.rendered - before != len(self.cameras):
            raise RuntimeError("the cameras were not sampled exactly once in this step")
        self._check_stable()
        return bool(done)

    def _check_stable(self) -> None:
        # MuJoCo answers a diverged state by a silent reset of the whole scene.
        from mujoco import mjtWarning

        warnings = self.env.sim.data._data.warning
        if any(warnings[getattr(mjtWarning, kind)].number for kind in UNSTABLE):
            raise RuntimeError("the physics became unstable (a bad number in MuJoCo's state)")

    def observation(self) -> Observation:
        """What is seen and felt now; pictures only of steps that were rendered."""
        raw = self._raw
        return Observation(
            pictures=self._pictures() if self._fresh else {},
            eef_pos=raw["robot0_eef_pos"].copy(),
            eef_quat=raw["robot0_eef_quat"].copy(),
            gripper_qpos=raw["robot0_gripper_qpos"].copy(),
            joint_pos=raw["robot0_joint_pos"].copy(),
            instruction=self.info.instruction,
            previous=self._previous,
        )

    def _pictures(self) -> dict[str, NDArray[np.uint8]]:
        return {name: self._raw[f"{SENSORS[name]}_image"].copy() for name in self.cameras}

    def state(self) -> NDArray[np.float64]:
        """Flattened simulator state (n,): time, qpos, qvel."""
        return np.asarray(self.env.get_sim_state(), np.float64)

    def state_sha256(self) -> str:
        """Digest of :meth:`state`."""
        return hashlib.sha256(self.state().tobytes()).hexdigest()

    def close(self) -> None:
        """Free the renderer and the scene; the simulator is unusable afterwards."""
        self.env.close()
        self._scene.release()
