"""``rdtl hostfile``: the same hosts for DeepSpeed's own launcher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.cli import common, complete

if TYPE_CHECKING:
    from launcher.hosts import Host


def hostfile(
    site: Annotated[
        str | None,
        typer.Option(
            "--site",
            help="Hosts of a site of kind hosts.",
            autocompletion=complete.configurations("sites"),
        ),
    ] = None,
    hosts: Annotated[
        Path | None, typer.Option("--hosts", help="A list: NAME or NAME slots=N a line.")
    ] = None,
    nodelist: Annotated[
        str | None, typer.Option("--nodelist", help="Slurm's way to write nodes, e.g. n[1-4].")
    ] = None,
    slots: Annotated[
        int, typer.Option("--slots", min=1, help="Slots (GPUs) of each node of --nodelist.")
    ] = 1,
    include: Annotated[
        str | None, typer.Option("--include", help="Only these: NAME[:SLOT,SLOT…][@NAME…].")
    ] = None,
    exclude: Annotated[
        str | None, typer.Option("--exclude", help="Not these, written in the same way.")
    ] = None,
    output_file: Annotated[Path, typer.Option("--out", help="Where to write the hostfile.")] = Path(
        "hostfile"
    ),
    as_json: common.JsonOption = False,
) -> None:
    """Write DeepSpeed's hostfile and print the command that uses it.

    The hosts come from one of --site, --hosts and --nodelist. rdtl itself needs no
    hostfile: `rdtl train --site` starts the ranks on hosts and on Slurm.
    """
    import shlex

    from launcher import hosts as lists

    output = common.start_output(as_json)
    found = lists.choose(_hosts(site, hosts, nodelist, slots), include, exclude)
    lists.write_hostfile(output_file, found)
    command = ["deepspeed", "--hostfile", str(output_file), *lists.filter_words(found)]
    output.say(f"wrote {output_file}: {len(found)} host(s)")
    output.text(f"{shlex.join(command)} TRAIN.py …")
    output.result({"hostfile": str(output_file.resolve()), "command": command})


def _hosts(site: str | None, hosts: Path | None, nodelist: str | None, slots: int) -> list[Host]:
    from launcher import hosts as lists
    from launcher import sites
    from launcher.core.errors import UsageError

    if [site, hosts, nodelist].count(None) != 2:
        raise UsageError(
            "RDTL-S057",
            "the hosts come from one of --site, --hosts and --nodelist",
            fix="rdtl hostfile --hosts my-hosts.txt",
        )
    if hosts is not None:
        return lists.read_list(hosts)
    if nodelist is not None:
        return lists.of_nodelist(nodelist, slots)
    assert site is not None
    found = sites.load(site)
    if not found.hosts:
        raise UsageError(
            "RDTL-S057",
            f"site {site} has no list of hosts",
            where=f"its kind is {found.kind}",
            fix="inside a Slurm job: rdtl hostfile --nodelist $SLURM_JOB_NODELIST --slots GPUS",
        )
    return found.hosts
