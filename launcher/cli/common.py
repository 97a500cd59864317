"""Options that mean the same on every command, and what several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.cli import complete
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
    str,
    typer.Option(
        "--site",
        help="Where to run: a file of configs/sites, without .yaml.",
        autocompletion=complete.configurations("sites"),
    ),
]


def pairs(given: list[str]) -> list[str]:
    """Refuses `--set KEY VALUE` for what it is; click would only see one word too many."""
    if any("=" not in one for one in given):
        from launcher.config import apply_settings

        apply_settings({}, given)
    return given


SetOption = Annotated[
    list[str],
    typer.Option("--set", help="Change a configuration key, e.g. train.steps=800.", callback=pairs),
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
    typer.Option(
        "--image",
        help="An image of configs/images, a .sif file, a Docker reference.",
        autocompletion=complete.configurations("images"),
    ),
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


def say_findings(output: Output, run: RunDir, plan: Plan, site: Site) -> list[str]:
    """Say what the quick checks find of a plan, and refuse nothing; the codes of errors."""
    from launcher.doctor import before, subject

    found = before.findings(subject.of_plan(plan, site, run.root.parent))
    for finding in found:
        if finding.severity != "ok":
            output.hint(finding)
    return [finding.code for finding in found if finding.severity == "error"]


def check(output: Output, run: RunDir, plan: Plan, site: Site) -> None:
    """Refuse a plan that would surely be lost time, or that its cluster can never run.

    A run that exists is continued or shown: what is found is said, and nothing is refused.
    """
    from launcher.doctor import before, subject

    if run.plan.exists():
        say_findings(output, run, plan, site)
        return
    before.require(output, subject.of_plan(plan, site, run.root.parent))
    check_cluster(output, run, plan, site)


def check_cluster(output: Output, run: RunDir, plan: Plan, site: Site) -> None:
    """Refuse a new plan that the cluster can never run, before anything is written."""
    from launcher.sites import require_shared

    if run.plan.exists():
        return
    require_shared(site, run.root)
    if site.kind == "slurm":
        from launcher.submit.slurm import SlurmBackend

        SlurmBackend(run, site, output.say).check(plan)


def submit_all(output: Output, run: RunDir, plan: Plan, site: Site, config_yaml: str) -> None:
    """Submit every stage of a run as jobs that wait for each other, and return."""
    from launcher.core.errors import UsageError
    from launcher.create import create
    from launcher.drive import submit_all as send

    if site.kind != "slurm":
        raise UsageError(
            "RDTL-U019",
            "--detach needs a scheduler",
            where=f"site {plan.site} is {site.kind}: its tasks end with this command",
            fix="leave --detach out, or choose a cluster with --site",
        )
    check(output, run, plan, site)
    known = create(run, plan, config_yaml)
    backend = backend_for(run, site, None)
    submitted = send(run, _adopt(output, run, known, plan, config_yaml, backend), backend)
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
    *,
    start: Path | None = None,
) -> Plan:
    """Create or continue the run and drive it to its end; returns the plan that really ran.

    A new run takes a copy of the git tree around ``start``.
    """
    from launcher.create import create

    check(output, run, plan, site)
    known = create(run, plan, config_yaml, start)
    backend = backend_for(run, site, jobs)
    plan = _adopt(output, run, known, plan, config_yaml, backend)
    drive_on(output, run, plan, backend, also)
    return plan


def _adopt(
    output: Output, run: RunDir, known: Plan, new: Plan, config_yaml: str, backend: Backend
) -> Plan:
    """The plan to go on with; says what of ``new`` it takes over."""
    from launcher.regroup import adopt, changes

    plan = adopt(run, known, new, config_yaml, backend)
    for key, (then, now) in changes(known, plan).items():
        output.say(f"goes on with {key} {now}; it was {then}")
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
    from launcher.staging import results

    watcher = Watcher(run, output)

    def watch(views: list[StageView]) -> None:
        watcher(views)
        if also:
            also(views)

    output.say(f"run {run.root} on site {plan.site}")
    output.if_interrupted = if_interrupted(run, goes_on=backend.submits_ahead)
    drive(run, plan, backend, watch)
    output.clear_status()
    for line in results.behind(run.root):
        output.say(line)


def if_interrupted(run: RunDir, *, goes_on: bool) -> str:
    """What Ctrl-C leaves of a run that this process drives, and the command that goes on."""
    import shlex

    where = shlex.quote(str(run.root))
    if goes_on:
        return (
            f"its jobs go on without you; to look again: rdtl runs watch {where}; "
            f"to end them: rdtl runs cancel {where}"
        )
    return f"its tasks have ended, what they finished is kept; to go on: rdtl runs resume {where}"
