ARG BASE=docker.io/library/debian:12.12-slim@sha256:d5d3f9c23164ea16f31852f95bd5959aad1c5e854332fe00f7b3a20fcc9f635c
FROM ${BASE}
ENV PATH="/opt/venv/bin:$PATH" \
    LC_ALL="C.UTF-8" \
    PYTHONNOUSERSITE="1" \
    PYTHONUNBUFFERED="1" \
    MUJOCO_GL="egl" \
    PYOPENGL_PLATFORM="egl" \
    NVIDIA_DRIVER_CAPABILITIES="compute,utility,graphics"
COPY steps/10_nvidia.json /usr/share/glvnd/egl_vendor.d/10_nvidia.json
RUN \
    --mount=type=bind,source=steps/system.sh,target=/opt/rdtl/build/system.sh \
    --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    sh /opt/rdtl/build/system.sh ca-certificates python3 python3-venv libglib2.0-0 libosmesa6 \
    libegl1 libglvnd0 libgles2 libgl1 libgl1-mesa-dri libglx-mesa0 libglu1-mesa
COPY lock.txt /opt/rdtl/lock.txt
RUN \
    --mount=type=bind,source=steps/python.sh,target=/opt/rdtl/build/python.sh \
    --mount=type=bind,source=steps/pip.sh,target=/opt/rdtl/build/pip.sh \
    --mount=type=bind,source=steps/part.py,target=/opt/rdtl/build/part.py \
    --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pipconf \
    --mount=type=secret,id=ca \
    sh /opt/rdtl/build/python.sh none
COPY steps/selftest.py /opt/rdtl/selftest.py
RUN \
    --mount=type=bind,source=steps/test.sh,target=/opt/rdtl/build/test.sh \
    --mount=type=bind,source=code,target=/opt/rdtl/build/code \
    sh /opt/rdtl/build/test.sh import:libero import:robosuite import:mujoco import:h5py \
    import:imageio import:imageio_ffmpeg import:cv2 import:websockets import:msgpack frame
RUN rm -rf /opt/rdtl/build
ARG ARCHITECTURE KEY
LABEL org.opencontainers.image.title="RDT Launcher simulator on NVIDIA GPUs" \
    io.rdtl.image="sim-gpu" \
    io.rdtl.lock … \
    io.rdtl.versions … \
    io.rdtl.architecture="${ARCHITECTURE}" \
    io.rdtl.key="${KEY}"
ENTRYPOINT []
CMD ["python3"]
USER 1000
