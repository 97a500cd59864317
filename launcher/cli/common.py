"""Options that mean the same on every command, and what several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.output import Output

if TYPE_CHECKING:
    from launcher.backend import Backend
    from launcher.core.plan import Plan
    from launcher.core.runs import RunDir
    from launcher.drive import StageView
    from launcher.schema import RunConfig
    from launcher.sites import Site

current = Output()
"""The output of the command that runs now; ``main`` prints errors through it."""

SiteOption = Annotated[
    str, typer.Option("--site", help="Where to run: a file of configs/sites, without .yaml.")
]
SetOption = Annotated[
    list[str], typer.Option("--set", help="Change a configuration key, e.g. train.steps=800.")
]
NameOption = Annotated[
    str | None, typer.Option("--name", help="Name of the run instead of the configuration's.")
]
RunsOption = Annotated[
    Path, typer.Option("--runs-dir", help="Where run directories lie.", envvar="RDTL_RUNS")
]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Tasks at once on a local site (default: what fits)."),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option("--runtime", help="apptainer, docker or none, instead of the site's."),
]
ImageOption = Annotated[
    str | None,
    typer.Option("--image", help="An image of configs/images, a .sif file, a Docker reference."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan and the exact scripts, submit nothing.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def start_output(as_json: bool) -> Output:
    """The output for this command; errors will use it too."""
    global current
    current = Output(as_json)
    return current


def require_contract(name: str, known: list[str]) -> None:
    """UsageError RDTL-U028, with what is near, unless the contract is known."""
    import difflib

    from launcher.core.errors import UsageError

    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(
        "RDTL-U028",
        f"there is no contract {name}{hint}",
        where=f"--contract {name}",
        why="the contract says which of the 128 numbers means what",
        fix=f"take one of {', '.join(known)}",
    )


def prepare(
    config: RunConfig,
    site_name: str,
    runs_dir: Path,
    name: str | None,
    runtime: str | None,
    image: str | None,
    dry_run: bool,
) -> tuple[RunDir, Plan, Site]:
    """Configuration → run directory (not created), plan and site."""
    from launcher import begins, presets, sites
    from launcher.core.runs import RunDir
    from launcher.runtime import choose

    begins.require_contract(config)
    site = sites.load(site_name)
    run = RunDir((runs_dir / f"{name or config.name}-{site_name}").resolve())
    container = choose(site, runtime, image, submits=not dry_run)
    return run, presets.pipeline(config, site_name, site, run, container), site


def backend_for(run: RunDir, site: Site, jobs: int | None) -> Backend:
    """The backend of a site; takes the run's lock where this process does the work."""
    from launcher import config
    from launcher.core import files

    text = config.to_yaml(site)
    if not run.site.exists() or run.site.read_text(encoding="utf-8") != text:
        files.write_text(run.site, text)
    if site.kind == "slurm":
        from launcher.submit.slurm import SlurmBackend

        return SlurmBackend(run, site, current.say)
    if site.kind == "hosts":
        from launcher.submit.hosts import HostsBackend

        return HostsBackend(run, site)
    from launcher.submit.local_backend import LocalBackend

    return LocalBackend(run, site, jobs)


def say_findings(output: Output, plan: Plan) -> None:
    """Say what is unusual about the recipe of a plan that trains."""
    from rdt.spec import recipe

    train = plan.config.get("train")
    for finding in recipe.findings(train, train["steps"]) if train else []:
        output.finding(finding)


def check_cluster(output: Output, run: RunDir, plan: Plan, site: Site) -> None:
    """Refuse a new plan that the cluster can never run, before anything is written."""
    if site.kind == "slurm" and not run.plan.exists():
        from launcher.submit.slurm import SlurmBackend

        SlurmBackend(run, site, output.say).check(plan)


def submit_all(output: Output, run: RunDir, plan: Plan, site: Site, config_yaml: str) -> None:
    """Submit every stage of a run as jobs that wait for each other, and return."""
    from launcher.core.errors import UsageError
    from launcher.create import create
    from launcher.drive import submit_all as send
    from launcher.regroup import adopt

    if site.kind != "slurm":
        raise UsageError(
            "RDTL-U019",
            "--detach needs a scheduler",
            where=f"site {plan.site} is {site.kind}: its tasks end with this command",
            fix="leave --detach out, or choose a cluster with --site",
        )
    check_cluster(output, run, plan, site)
    known = create(run, plan, config_yaml)
    backend = backend_for(run, site, None)
    submitted = send(run, adopt(run, known, plan, config_yaml, backend), backend)
    for name, ids in submitted.items():
        output.say(f"{name:<10} {', '.join(ids) or 'done earlier'}")
    output.say(f"run {run.root}; `rdtl runs show {run.root}` says how far it is")
    output.result({"run": str(run.root), "jobs": submitted})


def execute(
    output: Output,
    run: RunDir,
    plan: Plan,
    site: Site,
    config_yaml: str,
    jobs: int | None,
    also: Callable[[list[StageView]], Any] | None = None,
) -> Plan:
    """Create or continue the run and drive it to its end; returns the plan that really ran."""
    from launcher.create import create
    from launcher.regroup import adopt

    check_cluster(output, run, plan, site)
    say_findings(output, plan)
    known = create(run, plan, config_yaml)
    backend = backend_for(run, site, jobs)
    plan = adopt(run, known, plan, config_yaml, backend)
    drive_on(output, run, plan, backend, also)
    return plan


def drive_on(
    output: Output,
    run: RunDir,
    plan: Plan,
    backend: Backend,
    also: Callable[[list[StageView]], Any] | None = None,
) -> None:
    """Drive a run that exists to its end and say what happens."""
    from launcher.drive import drive
    from launcher.progress import Watcher

    watcher = Watcher(run, output)

    def watch(views: list[StageView]) -> None:
        watcher(views)
        if also:
            also(views)

    output.say(f"run {run.root} on site {plan.site}")
    drive(run, plan, backend, watch)
    output.clear_status()
