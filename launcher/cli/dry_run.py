"""``--dry-run`` of every command that submits a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.cli import common

if TYPE_CHECKING:
    from launcher.core.plan import Plan, Stage
    from launcher.core.runs import RunDir
    from launcher.output import Output
    from launcher.sites import Site


def show(output: Output, run: RunDir, plan: Plan, site: Site) -> None:
    """Print how long a training takes, and every stage: the exact sbatch script on a cluster,
    the command here."""
    from launcher.forecast import lines as forecast_lines

    errors = common.say_findings(output, run, plan, site)
    forecast = forecast_lines(run, plan, site)
    for line in forecast:
        output.text(f"training: {line}")
    scripts = {}
    for stage in plan.stages:
        on_node = node_command(run, stage)
        if site.kind == "slurm":
            from launcher.arrays import cut
            from launcher.submit.slurm import SlurmBackend

            after = [f"<job id of {parent}>" for parent in stage.needs]
            backend = SlurmBackend(run, site)
            parts = cut(stage.name, 1, list(range(stage.array)), backend.part_size(stage) or None)
            script = backend.script(stage, parts[0], after)
            scripts[stage.name] = f"{script}\n# which starts on each node: {on_node}\n"
        else:
            scripts[stage.name] = f"cd {run.root}  # {stage.array} task(s)\n{on_node}"
    for name, text in scripts.items():
        output.text(f"# ---- stage {name} ----\n{text}")
    shown = {"plan": plan.to_dict(), "scripts": scripts, "forecast": forecast}
    output.result({"run": str(run.root), **shown})
    output.say(f"dry run: nothing was written or submitted; the run would live in {run.root}")
    if errors and not run.plan.exists():
        output.say(f"without --dry-run it would be refused now: {', '.join(sorted(set(errors)))}")


def node_command(run: RunDir, stage: Stage) -> str:
    """The command that a node starts for ``stage``, as far as it is known before it runs."""
    import shlex

    from launcher.core import node_facts, runtimes

    if stage.container is None:
        return shlex.join(runtimes.activated(stage.argv, stage.activate))
    launch = runtimes.wrap(
        stage.container,
        stage.argv,
        stage.environment,
        {"SLURMD_NODENAME": "NODE"},
        node_facts.mount_facts(stage.container.program),
        working_directory=stage.working_directory or str(run.root),
        scratch="SCRATCH",
        tag=f"rdtl-{stage.name}",
    )
    return shlex.join(launch.argv)
