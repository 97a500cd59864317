"""``rdtl evaluate``: success rates of a checkpoint or of a reference policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from launcher.cli import common, complete
from launcher.cli.checkpoint import WeightsOption
from launcher.cli.dry_run import show as show_plan

if TYPE_CHECKING:
    from launcher.core.checks import Finding
    from launcher.core.errors import UsageError
    from launcher.schema import RunConfig


def evaluate(
    config_file: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="A file of configs/evaluate.",
            autocompletion=complete.configurations("evaluate"),
        ),
    ],
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint", metavar="PATH", help="A run, step directory or file of weights."
        ),
    ] = None,
    weights: WeightsOption = "auto",
    policy: Annotated[
        str | None,
        typer.Option("--policy", metavar="ws://HOST:PORT", help="The policy behind a server."),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that the server wants.", exists=True)
    ] = None,
    shards: Annotated[int | None, typer.Option("--shards", min=1, help="Array tasks.")] = None,
    site: common.SiteOption = "local",
    settings: common.SetOption = [],  # noqa: B006  typer copies it
    runtime: common.RuntimeOption = None,
    image: common.ImageOption = None,
    name: common.NameOption = None,
    runs_dir: common.RunsOption = Path("runs"),
    jobs: common.JobsOption = None,
    dry_run: common.DryRunOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Run episodes as an array and report rates with their intervals."""
    from launcher import config, summary
    from rdt.spec import chunks

    output = common.start_output(as_json)
    path = config.find("evaluate", config_file)
    said = {
        "evaluate.shards": shards,
        "evaluate.checkpoint": checkpoint,
        "evaluate.weights": weights if weights != "auto" else None,
    }
    settings = [*(f"{key}={value}" for key, value in said.items() if value), *settings]
    run_config = config.load_run_config(path, settings, ["evaluate"])
    run_config = run_config.model_copy(update={"train": None})
    run_config = with_server(with_network(run_config), policy, token_file)
    evaluated = run_config.evaluate
    assert evaluated is not None
    chosen = weights_chosen(evaluated.checkpoint, evaluated.weights)
    replanned = chunks.replanning(
        evaluated.execution_horizon, chosen.horizon, f"{evaluated.checkpoint}"
    )
    for finding in [*chosen.findings, *replanned]:
        output.finding(finding)
    run, plan, the_site = common.prepare(run_config, site, runs_dir, name, runtime, image, dry_run)
    if dry_run:
        show_plan(output, run, plan, the_site)
        return
    common.execute(output, run, plan, the_site, config.to_yaml(run_config), jobs)
    summary.show(output, run)


def with_network(config: RunConfig) -> RunConfig:
    """The configuration with policy rdt, if it names a checkpoint.

    Raises UsageError RDTL-U006 for a checkpoint and a server at once.
    """
    old = config.evaluate
    assert old is not None
    if old.checkpoint is None or "rdt" in old.policies:
        return config
    if old.server is not None:
        raise _two_under_test(f"evaluate.server {old.server}", old.checkpoint)
    new = old.model_copy(update={"policies": ["rdt", *old.policies]})
    return config.model_copy(update={"evaluate": new})


class Chosen(NamedTuple):
    """The copy of the weights that will be evaluated: what is to be said of it (RDTL-T002), and
    the actions in a chunk; nothing and 0 where only the job can tell."""

    findings: list[Finding]
    horizon: int


def weights_chosen(source: str | None, weights: str) -> Chosen:
    """Look at a checkpoint without reading it, where torch is in this environment too.

    Raises RdtlError RDTL-T012 for weights without a card, and what is wrong with the place
    that is named.
    """
    from importlib.util import find_spec

    from launcher import heavy
    from launcher.core.checks import Finding
    from launcher.presets import JOB_ENVIRONMENT
    from launcher.staging.uri import is_uri

    if source is None or is_uri(source) or find_spec("torch") is None:
        return Chosen([], 0)
    with common.current.working(f"looking at {source}"):
        found: dict[str, Any] = heavy.call(
            "jobs.checkpoint", "choose", source, weights, environment=JOB_ENVIRONMENT
        )["result"]
    text = f"{found['weights']} weights, {found['dtype']}: {found['path']}"
    warnings = [Finding(**f) for f in found["findings"] if f["severity"] == "warning"]
    return Chosen([Finding("RDTL-T002", "ok", text), *warnings], found["horizon"])


def with_server(config: RunConfig, uri: str | None, token_file: Path | None) -> RunConfig:
    """The configuration with policy server behind ``uri`` in place of rdt (unchanged without).

    Raises UsageError RDTL-U006 for a checkpoint and a server at once.
    """
    if uri is None:
        return config
    from launcher.config import validate

    old = config.evaluate
    assert old is not None
    if old.checkpoint is not None:
        raise _two_under_test(f"--policy {uri}", old.checkpoint)
    token = str(token_file.resolve()) if token_file else old.server_token
    policies = ["server", *(name for name in old.policies if name not in ("rdt", "server"))]
    update = {"server": uri, "server_token": token, "policies": policies}
    new = validate(type(old), {**old.model_dump(), **update}, "--policy")
    return config.model_copy(update={"evaluate": new})


def _two_under_test(server: str, checkpoint: str) -> UsageError:
    from launcher.core.errors import UsageError

    return UsageError(
        "RDTL-U006",
        "a server and a checkpoint are two policies under test",
        where=f"{server}, evaluate.checkpoint {checkpoint}",
        fix="evaluate them one by one, then rdtl report A B --compare",
    )
