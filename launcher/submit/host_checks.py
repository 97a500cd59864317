"""May a job start on these hosts? Judged from what they answered, before anything starts."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import snapshot
from launcher.core.checks import Finding, NothingToLookAtError
from launcher.core.errors import RefusedError
from launcher.core.node_facts import BUSY_MB
from launcher.hosts import Network
from launcher.sites import Site
from launcher.ssh import CHANGED, LOST, UNVERIFIED, lost
from launcher.submit import host_probes
from launcher.submit.host_probes import Answer


@dataclass(frozen=True)
class Way:
    """How one host is reached by the others."""

    interface: str
    address: str
    ib: bool

    def environment(self) -> dict[str, str]:
        """What gloo and NCCL must know on this host; both take the wrong interface by themselves
        where a host has several."""
        names = {"GLOO_SOCKET_IFNAME": self.interface, "NCCL_SOCKET_IFNAME": f"={self.interface}"}
        return names if self.ib else {**names, "NCCL_IB_DISABLE": "1"}


def hosts(site: Site, runs_dir: Path) -> list[Finding]:
    """The check of ``rdtl doctor``: with a snapshot in a directory beside the runs."""
    if site.kind != "hosts":
        raise NothingToLookAtError("this site is no list of hosts")
    runs_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".hosts-", dir=runs_dir) as folder:
        snapshot.copy_product(Path(folder) / "code")
        return judge(site, host_probes.ask(site, Path(folder)))[0]


def require(site: Site, root: Path) -> list[Way]:
    """How the hosts reach each other; RefusedError with the first thing that is wrong."""
    findings, found = judge(site, host_probes.ask(site, root))
    wrong = [finding for finding in findings if finding.severity == "error"]
    if not wrong:
        return found
    more = f" (and {len(wrong) - 1} more: rdtl doctor --site lists all)" if wrong[1:] else ""
    first = wrong[0]
    raise RefusedError(
        first.code, first.what + more, where=first.where, why=first.why, fix=first.fix
    )


def judge(site: Site, answers: list[Answer]) -> tuple[list[Finding], list[Way]]:
    """Findings, and a way to each host when none of them is an error. Pure."""
    silent = [finding for answer in answers if (finding := connection(answer))]
    if silent:
        return silent, []
    findings = [*shared(answers), *versions(answers)]
    if site.gpus_per_node:
        findings += gpus(answers)
    found = ways(answers, site.network)
    findings += network(answers, found, site.network)
    return findings or [_fine(answers, found)], found


def _fine(answers: list[Answer], found: list[Way]) -> Finding:
    pairs = zip(answers, found, strict=True)
    said = [f"{answer.host.host} as {way.address} ({way.interface})" for answer, way in pairs]
    return Finding(
        "RDTL-S051", "ok", f"the hosts are alike and reach each other: {', '.join(said)}"
    )


def connection(answer: Answer) -> Finding | None:
    """Why a host gave no facts, or None."""
    if answer.facts is not None:
        return None
    if answer.exit_code != LOST:
        return _not_shared(answer) if "No module named" in answer.words else _no_python(answer)
    if CHANGED in answer.words:
        found = lost(answer.host.host, answer.words).problem
        return Finding(found.code, "error", found.what, found.where, found.why, found.fix)
    asked = "Permission denied" in answer.words or UNVERIFIED in answer.words
    return _would_ask(answer) if asked else _silent(answer)


def _would_ask(answer: Answer) -> Finding:
    name = answer.host.host
    return Finding(
        "RDTL-S050",
        "error",
        f"ssh to {name} would ask a question, so a launcher cannot use it",
        answer.last_words,
        "no key is accepted there, or nobody has confirmed the key of the host",
        f"ssh {name} once confirms its key, ssh-copy-id {name} brings yours; then "
        f"ssh -o BatchMode=yes {name} true must print nothing",
    )


def _silent(answer: Answer) -> Finding:
    return Finding(
        "RDTL-S051",
        "error",
        f"host {answer.host.host} is not reached",
        answer.last_words,
        "a job that starts without it would wait for it for ever",
        f"ssh -v {answer.host.host}; or take it out of `hosts` in the site file",
    )


def _no_python(answer: Answer) -> Finding:
    name, limit = answer.host.host, host_probes.PATIENCE_S
    return Finding(
        "RDTL-S053",
        "error",
        f"the Python of this installation does not start on {name}",
        answer.last_words or f"exit code {answer.exit_code}, or no answer in {limit:g} s",
        "hosts run the same interpreter under the same path",
        f"install it there at the same path, or share it: ssh {name} ls {sys.executable}",
    )


def _not_shared(answer: Answer) -> Finding:
    return Finding(
        "RDTL-S052",
        "error",
        f"{answer.host.host} does not see the runs directory of this machine",
        answer.last_words,
        "code, ledger and checkpoints lie there: without it no host knows what the others do",
        "--runs-dir a directory of a shared file system, or mount it there under the same path",
    )


def shared(answers: list[Answer]) -> list[Finding]:
    """Every host sees our file in the directory, and we see what it wrote."""
    return [_not_shared(a) for a in answers if a.facts and not (a.facts["sees"] and a.wrote)]


def versions(answers: list[Answer]) -> list[Finding]:
    """Python and the packages whose difference ends in a hang or in other numbers."""
    differing = []
    for name in _facts(answers[0])["versions"]:
        by_host = {a.host.host: _facts(a)["versions"].get(name, "missing") for a in answers}
        if len(set(by_host.values())) > 1:
            said = ", ".join(f"{version} on {host}" for host, version in by_host.items())
            differing.append(f"{name} {said}")
    if not differing:
        return []
    return [
        Finding(
            "RDTL-T028",
            "error",
            "the hosts have different versions of what jobs run with",
            "; ".join(differing),
            "ranks of different versions hang in a collective or compute other numbers",
            "install the same versions on all hosts, best from one shared environment",
        )
    ]


def gpus(answers: list[Answer]) -> list[Finding]:
    """The GPUs that the site names exist and nobody uses them."""
    found = []
    for answer in answers:
        listed = {gpu["index"]: gpu for gpu in _facts(answer)["gpus"] or []}
        missing = [index for index in answer.host.devices() if index not in listed]
        if missing:
            found.append(_no_gpu(answer, missing, sorted(listed)))
        busy = [listed[i] for i in answer.host.devices() if i in listed]
        busy = [gpu for gpu in busy if gpu["used_mb"] > BUSY_MB]
        if busy:
            found.append(_busy_gpu(answer, busy))
    return found


def _no_gpu(answer: Answer, missing: list[int], listed: list[int]) -> Finding:
    return Finding(
        "RDTL-S055",
        "error",
        f"{answer.host.host} has no GPU {', '.join(map(str, missing))}",
        f"nvidia-smi there lists {listed}" if listed else "nvidia-smi there lists none",
        "a rank without its GPU fails, or takes the GPU of another",
        "correct slots, include or exclude of this host in the site file",
    )


def _busy_gpu(answer: Answer, busy: list[dict[str, int]]) -> Finding:
    numbers = [gpu["index"] for gpu in busy]
    return Finding(
        "RDTL-T029",
        "error",
        f"GPU {', '.join(map(str, numbers))} of {answer.host.host} is in use",
        ", ".join(f"GPU {g['index']}: {g['used_mb']} of {g['total_mb']} MiB in use" for g in busy),
        "two jobs on one GPU slow each other down and run out of memory",
        f"end what runs there (nvidia-smi), or `exclude: {numbers}` for this host in the site file",
    )


def ways(answers: list[Answer], wanted: Network) -> list[Way]:
    """For each host its fastest interface that all others reach; shorter when one has none."""
    ib = all(_facts(answer)["ib"] for answer in answers) if wanted.ib is None else wanted.ib
    found = []
    for number, answer in enumerate(answers):
        others = [other for other in answers if other is not answer]
        options = [
            (-one["speed"], name, one["address"])
            for name, one in _facts(answer)["interfaces"].items()
            if wanted.interface in (None, name)
            and all((number, one["address"]) in other.reached for other in others)
        ]
        if options:
            _, name, address = min(options)
            found.append(Way(name, address, ib))
    return found


def network(answers: list[Answer], found: list[Way], wanted: Network) -> list[Finding]:
    """A finding when some host cannot be reached by all others."""
    if len(found) == len(answers):
        return []
    tried = [
        f"{a.host.host}: "
        + (", ".join(f"{n} {i['address']}" for n, i in _facts(a)["interfaces"].items()) or "none")
        for a in answers
    ]
    only = f" over {wanted.interface}" if wanted.interface else ""
    return [
        Finding(
            "RDTL-S054",
            "error",
            f"the hosts do not all reach each other{only}",
            "; ".join(tried),
            "ranks open connections to each other on ports that the system chooses",
            "open the firewall between the hosts, or correct network.interface in the site file",
        )
    ]


def _facts(answer: Answer) -> dict[str, Any]:
    assert answer.facts is not None
    return answer.facts
