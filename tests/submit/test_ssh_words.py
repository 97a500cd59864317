"""What is named as a machine stays one, whoever named it: a file, a provider, an option."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from launcher.core.errors import UsageError
from launcher.dag import places
from launcher.ssh import CHANGED, Connection, lost
from launcher.staging import uri
from launcher.staging.stores import ssh as stage

HOSTILE = "-oProxyCommand=touch$IFS{}"


@pytest.mark.parametrize("form", ["{}", "ssh://{}@host", "{}@host"])
def test_a_host_that_is_an_option_is_refused(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    host = form.format(HOSTILE.format("x"))
    with pytest.raises(UsageError, match="RDTL-U133"):
        places.over_ssh(host)
    with pytest.raises(UsageError, match="RDTL-U133"):
        Connection(HOSTILE.format("x"))
    with pytest.raises(UsageError, match="RDTL-G019"):
        stage.ssh(uri.parse(f"ssh://{HOSTILE.format('x')}@host/folder"))


def test_a_host_that_nobody_has_confirmed_is_not_called_a_changed_one() -> None:
    unknown = lost("far", "Host key verification failed.\r\n").problem
    assert unknown.code == "RDTL-S050"
    assert "ssh far" in unknown.fix and "ssh-keygen" not in unknown.fix
    banner = f"@ WARNING: REMOTE {CHANGED}! @\nHost key verification failed.\n"
    assert lost("far", banner).problem.code == "RDTL-B013"


def test_ssh_itself_would_have_run_it(tmp_path: Path) -> None:
    """Why it is refused: the option's program runs on this machine, before any connection."""
    made = tmp_path / "made"
    subprocess.run(["ssh", HOSTILE.format(made), "host"], check=False, capture_output=True)
    assert made.exists()


@pytest.mark.parametrize(
    ("words", "never"),
    [
        ("ssh: Could not resolve hostname clustr: Name or service not known", True),
        ("ssh: connect to host login.example port 22: Connection refused", True),
        ("client_loop: send disconnect: Broken pipe", False),
        ("", False),
    ],
)
def test_a_host_that_was_never_reached_is_one_whose_address_to_check(
    words: str, never: bool
) -> None:
    """Nothing may have been submitted: the same command would fail in the same way."""
    problem = lost("login", words).problem
    assert problem.code == "RDTL-S037"
    assert ("`ssh login true`" in problem.fix) == never
