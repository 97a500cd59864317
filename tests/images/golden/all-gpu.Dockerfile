ARG BASE=docker.io/nvidia/cuda:13.0.2-devel-ubuntu24.04@sha256:5dc1bca23d05bd37b011be68ec470c03b403a5da07ec3a86e41af9470e9d0cc6
FROM ${BASE}
ENV PATH="/opt/venv/bin:$PATH" \
    LC_ALL="C.UTF-8" \
    PYTHONNOUSERSITE="1" \
    PYTHONUNBUFFERED="1" \
    DS_ACCELERATOR="cuda" \
    MUJOCO_GL="egl" \
    PYOPENGL_PLATFORM="egl" \
    NVIDIA_DRIVER_CAPABILITIES="compute,utility,graphics" \
    TORCH_CUDA_ARCH_LIST="8.0;8.6;8.9;9.0"
COPY steps/10_nvidia.json /usr/share/glvnd/egl_vendor.d/10_nvidia.json
RUN \
    --mount=type=bind,source=steps/system.sh,target=/opt/rdtl/build/system.sh \
    --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    sh /opt/rdtl/build/system.sh ca-certificates python3 python3-venv python3-dev g++ \
    libibverbs1 rdma-core libglib2.0-0t64 libosmesa6 libegl1 libglvnd0 libgles2 libgl1 \
    libgl1-mesa-dri libglx-mesa0 libglu1-mesa
COPY lock.txt /opt/rdtl/lock.txt
RUN \
    --mount=type=bind,source=steps/python.sh,target=/opt/rdtl/build/python.sh \
    --mount=type=bind,source=steps/pip.sh,target=/opt/rdtl/build/pip.sh \
    --mount=type=bind,source=steps/part.py,target=/opt/rdtl/build/part.py \
    --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pipconf \
    --mount=type=secret,id=ca \
    sh /opt/rdtl/build/python.sh none deepspeed
RUN \
    --mount=type=bind,source=steps/ops.sh,target=/opt/rdtl/build/ops.sh \
    --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    --mount=type=bind,source=steps/pip.sh,target=/opt/rdtl/build/pip.sh \
    --mount=type=bind,source=steps/part.py,target=/opt/rdtl/build/part.py \
    --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pipconf \
    --mount=type=secret,id=ca \
    sh /opt/rdtl/build/ops.sh fused_adam cpu_adam --
COPY steps/selftest.py /opt/rdtl/selftest.py
RUN \
    --mount=type=bind,source=steps/test.sh,target=/opt/rdtl/build/test.sh \
    --mount=type=bind,source=code,target=/opt/rdtl/build/code \
    sh /opt/rdtl/build/test.sh import:torch import:deepspeed import:transformers import:peft \
    import:h5py import:safetensors import:wandb import:pyarrow import:simplejpeg import:libero \
    import:robosuite import:mujoco import:imageio import:imageio_ffmpeg import:cv2 \
    import:websockets import:msgpack op:fused_adam op:cpu_adam gloo frame
RUN rm -rf /opt/rdtl/build
ARG ARCHITECTURE KEY
LABEL org.opencontainers.image.title="RDT Launcher training and simulator on NVIDIA GPUs" \
    io.rdtl.image="all-gpu" \
    io.rdtl.lock … \
    io.rdtl.versions … \
    io.rdtl.architecture="${ARCHITECTURE}" \
    io.rdtl.key="${KEY}"
ENTRYPOINT []
CMD ["python3"]
USER 1000
