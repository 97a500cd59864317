"""Lazy cameras: render only the steps whose picture somebody looks at, exactly.

A rendered control step costs about ten times an unrendered one. robosuite asks
every camera sensor once per control step; the wrapper answers that question
with the last picture instead of a new one unless a picture is wanted. Nothing
else changes: the sampling clocks of the observables run on (switching an
observable off would restart them and shift later pictures), and the pictures
that are rendered are the very ones that an eager environment returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sensor = Callable[[Any], NDArray[np.uint8]]


class LazyCameras:
    """Wraps the camera sensors of one robosuite environment.

    ``wanted`` decides whether the next sample is rendered; ``rendered`` counts
    pictures.
    """

    def __init__(self, size: int) -> None:
        self.wanted = False
        self.rendered = 0
        self._size = size

    def attach(self, environment: Any) -> None:
        """Wrap the camera sensors that ``environment`` builds from its next reset on.

        A hard reset builds new sensors through ``_create_camera_sensors``, which is
        therefore the place to wrap; robosuite tries each sensor out right after it, and
        that picture, which nobody sees, is saved too.
        """
        create = environment._create_camera_sensors

        def create_lazy(*args: Any, **kwargs: Any) -> tuple[list[Sensor], list[str]]:
            sensors, names = create(*args, **kwargs)
            return [self._lazy(sensor) for sensor in sensors], names

        environment._create_camera_sensors = create_lazy

    def _lazy(self, sensor: Sensor) -> Sensor:
        last = np.zeros((self._size, self._size, 3), np.uint8)

        def lazy_sensor(cache: Any) -> NDArray[np.uint8]:
            nonlocal last
            if self.wanted:
                last = sensor(cache)
                self.rendered += 1
            return last

        lazy_sensor.__dict__.update(sensor.__dict__)  # robosuite keeps `__modality__` there
        return lazy_sensor
