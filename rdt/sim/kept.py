"""Keeps the compiled scene over resets: a reset builds it anew, but nearly always the same one.

A compiled model is made from its XML alone, and what a GL context holds (meshes, textures,
sizes of buffers) from the model alone. While the XML stays the same in every character, the
model that is there, put back to what the compiler made in every byte, and its context are what
building them again, most of a reset, would give. Otherwise robosuite builds both.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np


class KeptScene:
    """Model and off-screen context of one robosuite environment that resets hard.

    ``models`` and ``contexts`` count what resets did not have to build.
    """

    def __init__(self, environment: Any) -> None:
        self.models = self.contexts = 0
        self._environment = environment
        self._build = environment._initialize_sim
        self._xml = self._wanted()
        self._model: Any = None
        self._compiled: Any = None  # the model as the compiler made it; nobody writes into it
        self._context: Any = None
        environment._initialize_sim = self._initialize

    def before_reset(self) -> None:
        """Hold the context, which otherwise dies with the simulation that a reset ends."""
        context = self._context = self._environment.sim._render_context_offscreen
        if context is not None:  # it must not hold the old model beside the new one
            context.sim = context.model = context.data = context.scn = None

    def release(self) -> None:
        """Forget what is kept: half a gigabyte that would wait for a collection of garbage."""
        self._model = self._compiled = self._context = None

    def _wanted(self) -> str:
        environment = self._environment
        xml, process = environment.model.get_xml(), environment._xml_processor
        return process(xml) if process else xml

    def _initialize(self) -> None:
        """Stands for robosuite's ``_initialize_sim``."""
        xml, context = self._wanted(), self._context
        same, self._xml, self._context = xml == self._xml, xml, None
        if same and self._compiled is not None:
            self._simulate_kept()
        else:
            self._compiled = None  # both at once would be 0.3 GB more
            self._build()
            self._model = self._environment.sim.model._model
            self._compiled = copy.copy(self._model)
        if same and context is not None:
            self._adopt(context)

    def _simulate_kept(self) -> None:
        from robosuite.utils.binding_utils import MjSim

        put_back(self._model, self._compiled)
        environment = self._environment
        environment.sim = MjSim(self._model)
        environment.sim.forward()
        environment.initialize_time(environment.control_freq)
        self.models += 1

    def _adopt(self, context: Any) -> None:
        """Give a context of an equal model to the new simulation."""
        import mujoco

        sim = self._environment.sim
        sim.forward()  # building a context does so, too
        context.sim, context.model, context.data = sim, sim.model, sim.data
        context.scn = mujoco.MjvScene(sim.model._model, maxgeom=1000)
        sim.add_render_context(context)
        self.contexts += 1


def put_back(target: Any, source: Any) -> None:
    """Give every array and number of a MuJoCo structure, an MjModel for one, its source's value."""
    for name in dir(source):
        value = None if name.startswith("_") else getattr(source, name)
        if isinstance(value, np.ndarray):
            getattr(target, name)[...] = value
        elif isinstance(value, int | float):
            if getattr(target, name) != value:  # sizes cannot be set, and never differ
                setattr(target, name, value)
        elif type(value).__module__.startswith("mujoco"):
            put_back(getattr(target, name), value)
