"""Logs of failures that this machine cannot cause in a test, each with where it is from.

``ran``: what was run to get it (elsewhere, or with packages that tests do not install).
``source``: the program whose message it is, where its hardware or packages are not at hand.
"""

# ruff: noqa: E501  lines of logs stay as they are

from __future__ import annotations

from typing import NamedTuple


class Sample(NamedTuple):
    """One log and how it came about."""

    code: str
    origin: str
    text: str


SAMPLES = (
    Sample(
        "RDTL-D024",
        "ran: grep -Hn 'min(32, self.shuffle_buffer_size)' src/openpi/waypoint/*_dataset.py "
        "in CharlieXie/openpi, the same at 2a67705 and 7de21c7 (vlm: line 221)",
        "src/openpi/waypoint/ae_dataset.py:219:                if len(buffer) >= min(32, self.shuffle_buffer_size):\n",
    ),
    Sample(
        "RDTL-C005",
        "ran: uv run --no-binary-package av --with av==14.4.0 python -c 1",
        "  x Failed to build `av==14.4.0`\n"
        "         Package 'libavutil', required by 'virtual:world', not found\n",
    ),
    Sample(
        "RDTL-C006",
        "ran: uv run --with ml_dtypes==0.3.2 --with 'numpy<2' python -c 'import ml_dtypes; ml_dtypes.int2'",
        "AttributeError: module 'ml_dtypes' has no attribute 'int2'. Did you mean: 'int4'?\n",
    ),
    Sample(
        "RDTL-E003",
        "ran: robosuite 1.4.0 with mujoco 3.17.0",
        "    assert joint_type in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)\n"
        "AssertionError\n",
    ),
    Sample(
        "RDTL-W005",
        "ran: uv run --with wandb==0.19.11 wandb login KEY (86 characters)",
        "ValueError: API key must be 40 characters long, yours was 86\n",
    ),
    Sample(
        "RDTL-C008",
        "source: openpi, pi0_pytorch.py",
        "ValueError: transformers_replace is not installed correctly. Please install it with "
        "`uv pip install transformers==4.53.2`\n",
    ),
    Sample(
        "RDTL-B019",
        "source: openpi, training/config.py",
        "ValueError: Config 'pi05_base' not found. Did you mean 'pi05_libero'?\n",
    ),
    Sample(
        "RDTL-E018",
        "source: openpi, shared/normalize.py",
        "FileNotFoundError: Norm stats file not found at: assets/libero/norm_stats.json\n",
    ),
    Sample(
        "RDTL-T007",
        "source: torch 2.7, on two GPUs of 97.9 GB",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 15.68 GiB. GPU 0 has a total "
        "capacity of 94.97 GiB of which 3.11 GiB is free.\n",
    ),
    Sample(
        "RDTL-T013",
        "source: RDT, train/train.py",
        "Resuming training state failed. Attempting to only load from model checkpoint.\n",
    ),
    Sample(
        "RDTL-T015",
        "source: DeepSpeed 0.19, runtime/engine.py",
        "ZeRORuntimeException: The checkpoint being loaded used a DP world size of 2 but the current "
        "world size is 4.\n",
    ),
    Sample(
        "RDTL-T017",
        "source: torch and NCCL 2.26.2 on two Blackwell GPUs",
        "RuntimeError: CUDA error: an illegal memory access was encountered\n",
    ),
    Sample(
        "RDTL-T019",
        "source: openpi, scripts/train_waypoint.py",
        "[AE] step=100/10000 loss=0.6120 lr=9.00e-05 gnorm=2.10 sps=0.1\n",
    ),
    Sample(
        "RDTL-T019",
        "source: openpi, scripts/train_waypoint.py",
        "[VLM] step=500/30000 loss=6.2010 lr=5.00e-05 gnorm=2.10 sps=0.3\n",
    ),
    Sample(
        "RDTL-T020",
        "source: openpi, scripts/train_waypoint.py",
        "  Skipping action_in_proj.weight: shape torch.Size([1024, 24]) != torch.Size([1024, 32])\n",
    ),
    Sample(
        "RDTL-T020",
        "source: openpi, scripts/train_waypoint.py",
        "Loaded 700 weight tensors, skipped 112\n",
    ),
    Sample(
        "RDTL-T020",
        "source: openpi, scripts/train_waypoint.py",
        "PaliGemma weights loaded: 603 params, 40 missing, 0 unexpected\n",
    ),
    Sample(
        "RDTL-T025",
        "source: torch, ProcessGroupNCCL",
        "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=12)\n",
    ),
    Sample(
        "RDTL-D013",
        "source: RDT, train/dataset.py",
        "Error catched when processing sample from 3: list index out of range\n",
    ),
    Sample(
        "RDTL-D023",
        "source: tensorflow-datasets, read_only_builder.py",
        "FileNotFoundError: Could not load dataset info from /workspace/data/libero_object/info\n",
    ),
    Sample(
        "RDTL-C015",
        "source: torch with CUDA 12.8 on a V100",
        "RuntimeError: CUDA error: no kernel image is available for execution on the device\n",
    ),
    Sample(
        "RDTL-C016",
        "source: Apptainer as root without CAP_SYS_RESOURCE",
        "ERROR  : Requesting capability set 0x0000003fffffffff while permitted capability set is "
        "0x00000000a80425fb\n",
    ),
    Sample(
        "RDTL-C017",
        "source: Apptainer without /dev/fuse",
        "FATAL:   container creation failed: mount error: squashfuse_ll exited with status 1\n",
    ),
    Sample(
        "RDTL-C018",
        "source: Apptainer",
        "FATAL:   could not use fakeroot: no mapping entry found in /etc/subuid for user\n",
    ),
    Sample(
        "RDTL-C021",
        "source: podman with crun",
        "Error: OCI runtime error: crun: cgroups in hybrid mode not supported, drop all controllers\n",
    ),
    Sample(
        "RDTL-E011",
        "source: PyOpenGL without libOSMesa",
        "AttributeError: 'NoneType' object has no attribute 'glGetError'\n",
    ),
    Sample(
        "RDTL-E017",
        "source: openpi-client 0.1.2 in an environment of its own",
        "ModuleNotFoundError: No module named 'typing_extensions'\n",
    ),
    Sample(
        "RDTL-W001",
        "source: git clone with a token in the address",
        "Cloning into 'openpi'... https://somebody:canary0123456789@github.com/owner/openpi.git\n",
    ),
    Sample("RDTL-W006", "source: wandb", "wandb: ERROR Unable to reach the server\n"),
    Sample(
        "RDTL-S014",
        "source: torch, gloo",
        "RuntimeError: [../third_party/gloo] Connection closed by peer [127.0.0.1]:4121\n",
    ),
    Sample(
        "RDTL-S022",
        "source: DeepSpeed's launcher",
        "FileNotFoundError: [Errno 2] No such file or directory: 'numactl'\n",
    ),
    Sample("RDTL-S002", "source: sbatch", "sbatch: error: Invalid job array specification\n"),
    Sample("RDTL-S003", "source: sacct", "Slurm accounting storage is disabled\n"),
    Sample(
        "RDTL-S009",
        "source: submitit in a container",
        "FileNotFoundError: [Errno 2] No such file or directory: 'scontrol'\n",
    ),
    Sample("RDTL-S012", "source: submitit", "Job not requeued because: timed-out too many times\n"),
    Sample("RDTL-S015", "source: torch", "RuntimeError: Error building extension 'cpu_adam'\n"),
    Sample("RDTL-S020", "source: squeue", "12 main train user PD (DependencyNeverSatisfied)\n"),
    Sample("RDTL-S021", "source: squeue", "12 main train user PD (QOSMaxGRESPerUser)\n"),
    Sample(
        "RDTL-E012",
        "source: robosuite",
        "AttributeError: 'MjRenderContextOffscreen' object has no attribute 'con'\n",
    ),
    Sample("RDTL-E016", "source: websockets", "sent 1011 keepalive ping timeout; no close frame\n"),
    Sample(
        "RDTL-E026",
        "source: LIBERO",
        "AttributeError: 'OffScreenRenderEnv' object has no attribute 'env'\n",
    ),
)
