"""Runtime none: a site may name shell lines that come before the command."""

from __future__ import annotations

from pathlib import Path

from tests.cli.run_rdtl import rdtl


def test_the_lines_of_the_stage_come_first(tmp_path: Path) -> None:
    sites = tmp_path / "configs" / "sites"
    sites.mkdir(parents=True)
    (sites / "mine.yaml").write_text(
        "kind: local\nactivate:\n  default: export FROM=default\n  run: |\n"
        "    set -u\n    export FROM='a  line'\n"
    )
    done = rdtl("run", "--site", "mine", "--", "sh", "-c", 'echo "$FROM"; exit 4', cwd=tmp_path)
    assert done.stdout == "a  line\n"
    assert "exit code 4" in done.stderr


def test_lines_that_fail_stop_the_stage(tmp_path: Path) -> None:
    sites = tmp_path / "configs" / "sites"
    sites.mkdir(parents=True)
    (sites / "mine.yaml").write_text("kind: local\nactivate: {default: source nowhere}\n")
    done = rdtl("run", "--site", "mine", "--", "touch", "made", cwd=tmp_path)
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert not (tmp_path / "made").exists()
