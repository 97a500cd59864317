"""Where recipes run: names of machines, secrets' references, this machine as a place."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from launcher.core.errors import RdtlError
from launcher.dag import places, secrets
from launcher.dag.live import gpu_line
from launcher.dag.schema import Recipe
from tests.cli.run_rdtl import rdtl
from tests.recipes.users import CANARY, RUN, Here


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def test_ctrl_c_leaves_it_running(here: Here) -> None:
    client = subprocess.Popen(
        RUN, cwd=here.folder, env={**os.environ, **here.env}, stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert client.stderr is not None
    while "two: begins" not in client.stderr.readline():
        assert client.poll() is None
    client.send_signal(signal.SIGINT)
    _, err = client.communicate(timeout=20)
    assert client.returncode == 130, err
    assert "rdtl recipe attach here.yaml" in err
    found = json.loads(here("status", "--json").stdout)
    assert (found["alive"], found["steps"]["two"]["status"]) == (True, "running")
    here.let_go()
    attached = here("attach")
    assert attached.returncode == 0, attached.stderr
    assert (here.runs("one"), here.runs("two")) == (1, 1)


@pytest.mark.slow
def test_what_would_run_and_what_is_still_good(here: Here) -> None:
    planned = here.planned()
    assert [line["would"] for line in planned] == ["run", "run"]
    assert not (here.work / "one.runs").exists()
    here.let_go()
    assert here("run").returncode == 0
    planned = here.planned()
    assert [line["would"] for line in planned] == ["skip", "skip"]
    assert here("verify").returncode == 0
    (here.work / "size").write_text("3\n")
    verified = here("verify", "one")
    assert verified.returncode == 3, verified.stderr
    assert "BAD   one" in verified.stdout
    (here.work / "size").unlink()
    planned = here.planned()
    assert planned[0]["would"] == "run"


@pytest.mark.slow
def test_a_plan_names_the_flaws_of_its_profile(here: Here) -> None:
    assert "RDTL-T016" in here("plan", "--profile", "old").stdout
    flaws = json.loads(here("plan", "--profile", "old", "--json").stdout)["flaws"]
    assert [(one["code"], one["severity"], one["what"], one["where"]) for one in flaws] == [
        ("RDTL-T016", "warning", "each GPU alone", "here, profile old")
    ]
    assert json.loads(here("plan", "--json").stdout)["flaws"] == []


@pytest.mark.slow
def test_another_name_is_another_run(here: Here) -> None:
    here.let_go()
    assert here("run").returncode == 0
    assert here("run", "--name", "second").returncode == 0
    assert here.runs("one") == 2
    missing = here("attach", "--name", "third").stderr
    assert "RDTL-U138" in missing
    assert "runs there: here, second" in missing
    (here.folder / "here.yaml").unlink()  # somebody else, who has no such recipe
    found = rdtl("recipe", "status", "second", "--json", cwd=here.folder, env=here.env)
    assert json.loads(found.stdout)["rc"] == 0


def test_a_failed_step_is_told_once_as_json(here: Here) -> None:
    here.let_go()
    done = rdtl("recipe", "run", "here.yaml", "--json", "--set", "work=/nowhere/at/all",
                cwd=here.folder, env=here.env)  # fmt: skip
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert found["steps"]["one"]["state"] == "failed"
    assert found["steps"]["two"]["state"] == "blocked"
    assert found["error"]["code"] == "RDTL-B058"


def test_in_a_job_of_a_site(here: Here) -> None:
    here.let_go()
    env = {**here.env, "XDG_STATE_HOME": str(here.folder / "state")}
    words = ("recipe", "run", "here.yaml", "--site", "local")
    done = rdtl(*words, "--json", cwd=here.folder, env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"]["two"]["state"] == "done"
    run = here.folder / "runs" / "here-local"
    assert json.loads((run / "recipe" / "rc").read_text()) == 0
    for path in (path for path in here.folder.rglob("*") if path.is_file()):
        assert CANARY.encode() not in path.read_bytes(), path
    assert not list((here.folder / "state" / "rdtl" / "secrets").iterdir())
    again = rdtl(*words, cwd=here.folder, env=env)
    assert again.returncode == 0, again.stderr
    assert (here.runs("one"), here.runs("two")) == (1, 1)
    other = rdtl(*words, "--set", f"work={here.folder}", cwd=here.folder, env=env)
    assert "RDTL-U013" in other.stderr


@pytest.mark.slow
def test_a_job_runs_with_the_files_as_they_are_now(here: Here) -> None:
    steps = {"one": {"argv": ["bash", "${files}/one.sh"], "timeout": "10s"}}
    made = {"name": "here", "about": "a test", "files": ["one.sh"], "steps": steps}
    (here.folder / "here.yaml").write_text(yaml.safe_dump(made))
    (here.folder / "one.sh").write_text("exit 7")
    words = ("recipe", "run", "here.yaml", "--site", "local")
    assert rdtl(*words, cwd=here.folder, env=here.env).returncode == 1
    (here.folder / "one.sh").write_text("exit 0")
    done = rdtl(*words, cwd=here.folder, env=here.env)
    assert done.returncode == 0, done.stderr
    sent = here.folder / "runs" / "here-local" / "recipe"
    (here.folder / "one.sh").write_text("exit 8")
    with (sent / "lock").open("ab") as lock:  # as a runner on another node holds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        rdtl(*words, cwd=here.folder, env=here.env)
        assert (sent / "files" / "one.sh").read_text() == "exit 0"
    rdtl(*words, cwd=here.folder, env=here.env)
    assert (sent / "files" / "one.sh").read_text() == "exit 8"


@pytest.mark.slow
def test_ctrl_c_leaves_no_secret_of_a_job_that_ends_with_it(here: Here) -> None:
    state = here.folder / "state"
    client = subprocess.Popen(
        [*RUN, "--site", "local"], cwd=here.folder,
        env={**os.environ, **here.env, "XDG_STATE_HOME": str(state)},
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert client.stderr is not None
    while "two: begins" not in client.stderr.readline():
        assert client.poll() is None
    kept = list((state / "rdtl" / "secrets").iterdir())
    assert CANARY in kept[0].read_text()
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=40)
    assert client.returncode == 130
    assert not kept[0].exists()


def test_names_of_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    place = places.over_ssh("ssh://me@box.example:2222", ["-ikey"])
    assert place.connection is not None
    assert place.connection.host == "me@box.example"
    assert place.connection.options[:3] == ("-ikey", "-p", "2222")
    assert places.over_ssh("mybox").connection is not None
    for wrong in ("http://x", "ssh://", "ssh://a:b", "ssh://h/path"):
        with pytest.raises(RdtlError) as raised:
            places.over_ssh(wrong)
        assert raised.value.problem.code == "RDTL-U133"
    with pytest.raises(RdtlError) as raised:
        places.over_ssh("ssh://me:secret@host")
    assert raised.value.problem.code == "RDTL-W003"
    assert "secret@" not in str(raised.value)


def test_secrets_come_from_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "one two=three")
    (tmp_path / "b").write_text("four\n")
    found = secrets.read(["A", "B"], secrets.references([f"B=file:{tmp_path}/b"], "AB", "r"))
    assert secrets.as_lines(found) == b"A=one two=three\nB=four\n"
    (tmp_path / "b").write_text("four\nfive\n")
    wants = Recipe(
        name="r",
        about="it",
        secrets={"C": "opens the door", "D": "opens the window"},
        optional_secrets=["D"],
        steps={},
    )
    for names, given, code in (
        (["C"], [], "RDTL-U136"),
        (["B"], [f"B=file:{tmp_path}/b"], "RDTL-U136"),
        (["D"], ["D=file:/nowhere"], "RDTL-U136"),
        (["A"], ["A=value"], "RDTL-U135"),
    ):
        with pytest.raises(RdtlError) as raised:
            secrets.read(names, secrets.references(given, "ABCD", "r"), wants)
        assert raised.value.problem.code == code
        assert "value" not in raised.value.problem.where
        assert names != ["C"] or "opens the door" in raised.value.problem.why
    assert secrets.read(["A", "D"], {}, wants) == {"A": "one two=three", "D": ""}
    monkeypatch.setenv("D", "given")
    assert secrets.read(["D"], {}, wants) == {"D": "given"}
    looked = secrets.present(["A", "B", "C"], {"B": f"file:{tmp_path}/b"})
    assert looked == {"A": "one two=three", "B": "", "C": ""}


def test_a_secret_that_no_recipe_declares_is_refused(here: Here) -> None:
    wrong = ("--secret", f"TOKN=file:{here.folder}/token")
    caps = ("--max-price", "1", "--max-hours", "1")
    for words in (
        ("recipe", "run", "here.yaml", *wrong),
        ("recipe", "run", "here.yaml", "--site", "local", *wrong),
        ("recipe", "plan", "here.yaml", *wrong),
        ("cloud", "up", "here.yaml", *caps, *wrong),
        ("cloud", "up", "--gpus", "1", *caps, *wrong),
    ):
        done = rdtl(*words, cwd=here.folder, env=here.env)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert "RDTL-U122" in done.stderr
        assert ("did you mean TOKEN?" in done.stderr) == ("here.yaml" in words)
    assert not (here.folder / "home").exists()
    here.let_go()
    assert here("run").returncode == 0
    assert "did you mean TOKEN?" in here("verify", *wrong).stderr


def test_what_nvidia_smi_says() -> None:
    assert gpu_line("0, 80589, 97887, 99") == "GPU 0: 78.7 of 95.6 GiB, 99 %"
