"""Examples below the help of every command. A test parses each against the command line itself."""

from __future__ import annotations

import typer

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("rdtl demo --quick", "rdtl demo --site minislurm --minutes 5"),
    "run": (
        "rdtl run -- python train.py --epochs 3",
        "rdtl run --site my-cluster --nodes 2 --gpus 8 --per gpu -- python train.py",
    ),
    "pipeline": (
        "rdtl pipeline demo --dry-run",
        "rdtl pipeline mine.yaml --site my-cluster --detach",
    ),
    "shell": (
        "rdtl shell --image all-cpu --runtime apptainer",
        "rdtl shell --site my-cluster --into mine-my-cluster",
    ),
    "train": (
        "rdtl train sft --site my-cluster --dry-run",
        "rdtl train mine.yaml --set train.steps=2000 --name longer",
    ),
    "evaluate": (
        "rdtl evaluate smoke --checkpoint runs/mine-local",
        "rdtl evaluate published --policy ws://127.0.0.1:8000 --shards 20",
    ),
    "sweep": (
        "rdtl sweep full --checkpoint runs/mine-local --horizons 8,12,16",
        "rdtl sweep smoke --follow runs/mine-my-cluster --site my-cluster",
    ),
    "serve": (
        "rdtl serve runs/mine-local",
        "rdtl serve runs/mine-local --device cuda:0 --dtype bfloat16 --port 0",
    ),
    "hostfile": (
        "rdtl hostfile --hosts my-hosts.txt --exclude n3",
        "rdtl hostfile --nodelist 'n[1-4]' --slots 8",
    ),
    "report": (
        "rdtl report runs/mine-local",
        "rdtl report runs/mine-local runs/other-local --compare --html",
    ),
    "doctor": (
        "rdtl doctor train/demo",
        "rdtl doctor mine.yaml --site my-cluster --json",
        "rdtl doctor evaluate/smoke --checkpoint runs/mine/policy --fix",
    ),
    "diagnose": ("rdtl diagnose runs/mine-local", "rdtl diagnose slurm-1234.out"),
    "checkpoint inspect": ("rdtl checkpoint inspect runs/mine-local",),
    "checkpoint adopt": (
        "rdtl checkpoint adopt downloads/rdt-goal --contract libero-raw-velocity",
    ),
    "checkpoint export": ("rdtl checkpoint export runs/mine-local exported",),
    "cloud offers": ("rdtl cloud offers rdt/finetune --max-price 3",),
    "cloud up": (
        "rdtl cloud up rdt/finetune --max-price 3 --max-hours 12 --dry-run",
        "rdtl cloud up --gpus 1 --gpu H100 --max-price 3 --max-hours 1",
    ),
    "cloud status": ("rdtl cloud status --json",),
    "cloud attach": ("rdtl cloud attach finetune",),
    "cloud hosts": ("rdtl cloud hosts box-1 box-2 --site boxes --shared /shared",),
    "cloud down": ("rdtl cloud down finetune",),
    "data verify": (
        "rdtl data verify data/libero_goal",
        "rdtl data verify data/libero_goal --statistics stats.json --json",
    ),
    "data stats": (
        "rdtl data stats data/libero_goal --format rdt --out stats.json",
    ),
    "data buffer": ("rdtl data buffer data/droid --out /scratch/buffer --fill-up",),
    "data collect": ("rdtl data collect data --suite libero_object --demos 50",),
    "data inspect": ("rdtl data inspect data/libero_goal --out page",),
    "data embed": (
        "rdtl data embed libero_goal --encoder google/t5-v1_1-xxl --out embeddings",
    ),
    "image build": (
        "rdtl image build all-cpu --with apptainer",
        "rdtl image build all-cpu --with apptainer --from docker",
    ),
    "image list": ("rdtl image list",),
    "image inspect": ("rdtl image inspect all-cpu --test",),
    "image push": ("rdtl image push all-gpu registry.example.org/me/all-gpu",),
    "image pull": ('rdtl image pull "$(cat reference.txt)"',),
    "image clean": ("rdtl image clean --days 14 --dry-run",),
    "image dockerfile": ("rdtl image dockerfile all-gpu",),
    "image def": ("rdtl image def all-gpu",),
    "recipe list": ("rdtl recipe list",),
    "recipe lint": ("rdtl recipe lint my-recipe.yaml",),
    "recipe graph": ("rdtl recipe graph rdt/finetune --html graph.html",),
    "recipe plan": ("rdtl recipe plan rdt/finetune --host ssh://me@box:22",),
    "recipe run": (
        "rdtl recipe run rdt/finetune --set workspace=/data",
        "rdtl recipe run mine.yaml --host my-box --secret HF_TOKEN=env:HF_TOKEN",
    ),
    "recipe attach": ("rdtl recipe attach rdt/finetune --host my-box",),
    "recipe status": ("rdtl recipe status rdt/finetune --json",),
    "recipe stop": ("rdtl recipe stop rdt/finetune --host my-box",),
    "recipe verify": ("rdtl recipe verify rdt/finetune train",),
    "recipe fetch": ("rdtl recipe fetch rdt/ssh-workstation results --out mine",),
    "stage in": (
        "rdtl stage in libero-goal",
        "rdtl stage in s3://bucket/checkpoints/step_4000 --transfers 16",
    ),
    "stage out": ("rdtl stage out runs/mine-local/policy gs://bucket/mine/policy",),
    "stage verify": ("rdtl stage verify",),
    "stage list": ("rdtl stage list",),
    "stage clean": ("rdtl stage clean --days 14 --dry-run",),
    "stage login": ("rdtl stage login gg1 shared/folder --type drive",),
    "runs list": ("rdtl runs list", "rdtl runs list --site my-cluster --json"),
    "runs show": ("rdtl runs show mine-local --diff",),
    "runs logs": ("rdtl runs logs mine-local --stage train --follow",),
    "runs watch": ("rdtl runs watch", "rdtl runs watch mine-my-cluster --once"),
    "runs fetch": ("rdtl runs fetch mine-my-cluster results --site my-cluster",),
    "runs resume": ("rdtl runs resume mine-local",),
    "runs resubmit": (
        "rdtl runs resubmit mine-my-cluster --failed",
        "rdtl runs resubmit mine-my-cluster --as-new again",
    ),
    "runs cancel": ("rdtl runs cancel mine-my-cluster",),
    "runs clean": ("rdtl runs clean --dry-run",),
}  # fmt: skip
"""Command → what one would type."""


def add_to(app: typer.Typer, above: str = "") -> None:
    """Put the examples below the help of the commands of ``app`` and its groups."""
    for group in app.registered_groups:
        assert group.typer_instance is not None
        add_to(group.typer_instance, f"{above}{group.name} ")
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        if lines := EXAMPLES.get(above + name):
            shown = "\n".join(f"  {line}" for line in lines)
            command.epilog = f"\b\nExample{'s'[: len(lines) > 1]}:\n{shown}"
