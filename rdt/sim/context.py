"""Keeps the renderer over resets: a reset rebuilds the model, but nearly always the same one.

What a GL context holds (meshes, textures, sizes of buffers) is made from the model alone. If
the new model equals the old one in every byte, a new context would too, and building it, which
costs more than the rest of a reset, can be left out. Otherwise robosuite builds a new one.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np


class KeptContext:
    """The off-screen context of one robosuite environment; ``reused`` counts what was saved."""

    def __init__(self, environment: Any) -> None:
        self.reused = 0
        self._environment = environment
        self._context: Any = None
        self._built_from = b""
        self._newest = digest(environment.sim.model._model)
        initialize = environment._initialize_sim

        def initialize_and_adopt(*args: Any, **kwargs: Any) -> None:
            initialize(*args, **kwargs)
            self._adopt(environment.sim)

        environment._initialize_sim = initialize_and_adopt

    def before_reset(self) -> None:
        """Hold the context, which otherwise dies with the simulation that a reset ends."""
        self._context = self._environment.sim._render_context_offscreen
        self._built_from = self._newest

    def _adopt(self, sim: Any) -> None:
        """Give the held context to a new simulation of the same model."""
        context, self._context = self._context, None
        self._newest = digest(sim.model._model)
        if context is None or self._newest != self._built_from:
            return
        import mujoco

        sim.forward()  # building a context does so, too
        context.sim, context.model, context.data = sim, sim.model, sim.data
        context.scn = mujoco.MjvScene(sim.model._model, maxgeom=1000)
        sim.add_render_context(context)
        self.reused += 1


def digest(model: Any) -> bytes:
    """Of all bytes of a compiled mujoco.MjModel."""
    import mujoco

    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return hashlib.sha256(buffer.data).digest()
