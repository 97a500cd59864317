"""A machine that is examined: nothing of the user's own is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.doctor.subject import Subject, as_json
from launcher.schema import RunConfig
from launcher.sites import Site


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, which nobody else may enter unless a test says so."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)
    for name in ("RCLONE_CONFIG", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "NETRC", "WANDB_API_KEY",
                 "HF_HOME", "HF_TOKEN_PATH", "AWS_SHARED_CREDENTIALS_FILE",
                 "TORCH_EXTENSIONS_DIR", "CUDA_VISIBLE_DEVICES", "http_proxy", "https_proxy",
                 "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    return folder


def subject(folder: Path, site: dict[str, Any] | None = None, **sections: Any) -> Subject:
    """A run of these sections on a site of these keys; without sections no run."""
    config = as_json(RunConfig(name="test", **sections)) if sections else None
    made = Site(**{"kind": "local", **(site or {})})
    return Subject("here", made, folder / "runs", config)
