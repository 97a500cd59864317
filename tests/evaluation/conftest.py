"""The renderer is chosen while mujoco is imported, hence before anything of rdt.sim."""

import os

os.environ.update(
    MUJOCO_GL="osmesa", PYOPENGL_PLATFORM="osmesa", LP_NUM_THREADS="0", OMP_NUM_THREADS="1"
)
