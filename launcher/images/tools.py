"""Docker, Apptainer and pip as child processes: checked, logged and with secrets kept out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from launcher.core.job import die_with_parent
from launcher.images.builder import Builder
from launcher.images.errors import tool_missing

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+")
CREDENTIALS = re.compile(r"://[^/\s@]+@")
HIDDEN = "[hidden]"


class Redaction:
    """Takes out of a line what a builder's pip.conf holds: addresses, hosts, names, passwords."""

    def __init__(self, builder: Builder) -> None:
        values: set[str] = set()
        if path := builder.secrets().get("pipconf"):
            text = path.read_text(encoding="utf-8")
            for address in ADDRESS.findall(text):
                parts = urlsplit(address)
                values |= {address, parts.netloc, parts.hostname or ""}
                values |= {parts.username or "", parts.password or ""}
        self.values = sorted(filter(None, values), key=len, reverse=True)

    def __call__(self, line: str) -> str:
        """The line without secrets."""
        for value in self.values:
            line = line.replace(value, HIDDEN)
        return CREDENTIALS.sub(f"://{HIDDEN}@", line)


def run_logged(
    argv: list[str], environment: dict[str, str], log: Path, redact: Redaction, folder: Path
) -> int:
    """Run a program in ``folder``, append its redacted output to ``log``; returns its status.

    An interrupt of ours ends the program too. OSError when the log cannot be written.
    """
    with log.open("a", encoding="utf-8") as handle:
        handle.write(f"$ {redact(' '.join(argv))}\n")
        process = subprocess.Popen(
            argv,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=die_with_parent,  # nobody would publish what an orphan builds
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                handle.write(redact(line))
                handle.flush()
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def ask(argv: list[str], environment: dict[str, str], seconds: float = 60) -> str | None:
    """Output of a short command, or None when it fails, is missing or does not answer."""
    try:
        done = subprocess.run(
            argv, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def docker_environment(builder: Builder) -> dict[str, str]:
    """The caller's environment for the Docker client, with BuildKit switched on."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    if builder.docker_host:
        environment["DOCKER_HOST"] = builder.docker_host
    return environment


def docker_version(builder: Builder) -> str:
    """Version of the engine; RdtlError RDTL-C029 without one, or when the client lacks BuildKit."""
    environment = docker_environment(builder)
    where = f"builder key docker: {builder.docker}"
    if shutil.which(builder.docker) is None:
        raise tool_missing(
            "docker", f"no such program ({where})", "install it, or --with apptainer"
        )
    answer = ask([builder.docker, "version", "--format", "{{json .}}"], environment)
    versions = json.loads(answer) if answer else {}
    if not versions.get("Server"):
        host = environment.get("DOCKER_HOST", "its default address")
        raise tool_missing(
            "docker", f"no engine answers at {host}", "start it, or set docker_host in the builder"
        )
    client = str(versions["Client"]["Version"])
    # From 23.0 on BuildKit is a plugin; before it was part of the client.
    if int(client.split(".")[0]) >= 23 and not ask(
        [builder.docker, "buildx", "version"], environment
    ):
        raise tool_missing(
            "docker",
            f"client {client} has no buildx plugin, so it knows no BuildKit ({where})",
            "install docker-buildx, or name another client in the builder",
        )
    return f"docker {versions['Server']['Version']}"


def apptainer_environment() -> dict[str, str]:
    """The caller's environment without options for Apptainer, which it reads from variables."""
    prefixes = ("APPTAINER", "SINGULARITY")
    return {name: v for name, v in os.environ.items() if not name.startswith(prefixes)}


def apptainer_version(builder: Builder) -> str:
    """Version of Apptainer; RdtlError RDTL-C029 when there is none."""
    answer = ask([builder.apptainer, "--version"], apptainer_environment())
    if answer is None:
        raise tool_missing(
            "apptainer",
            f"it cannot be run (builder key apptainer: {builder.apptainer})",
            "load its module, install its package, or run containers/install-apptainer.sh PREFIX",
        )
    return answer.strip()


def pip_environment(builder: Builder, extra_index: str | None) -> dict[str, str]:
    """The caller's environment with the builder's index settings, else with ``extra_index``."""
    environment = dict(os.environ)
    secrets = builder.secrets()
    if "pipconf" in secrets:
        environment["PIP_CONFIG_FILE"] = str(secrets["pipconf"])
    elif extra_index:
        environment.setdefault("PIP_EXTRA_INDEX_URL", extra_index)
    if "ca" in secrets:
        environment["PIP_CERT"] = str(secrets["ca"])
    return environment
