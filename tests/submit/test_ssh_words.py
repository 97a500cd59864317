"""What is named as a machine stays one, whoever named it: a file, a provider, an option."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from launcher.core.errors import UsageError
from launcher.dag import places
from launcher.ssh import Connection
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


def test_ssh_itself_would_have_run_it(tmp_path: Path) -> None:
    """Why it is refused: the option's program runs on this machine, before any connection."""
    made = tmp_path / "made"
    subprocess.run(["ssh", HOSTILE.format(made), "host"], check=False, capture_output=True)
    assert made.exists()
