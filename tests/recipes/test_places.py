"""Where recipes run: names of machines, secrets' references, this machine as a place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launcher.core.errors import RdtlError
from launcher.dag import places, secrets
from launcher.dag.live import gpu_line
from launcher.dag.schema import Recipe
from tests.cli.run_rdtl import rdtl

CANARY = "canary_9f27c1e0b4"
RUN = [sys.executable, "-P", "-m", "launcher", "recipe", "run", "here.yaml"]
STEPS = {
    "one": {
        "script": 'echo x >> "$work/one.runs"; printf %s "$TOKEN" | wc -c > "$work/size"',
        "secrets": ["TOKEN"],
        "outputs": ["${work}/size"],
        "verify": {"cheap": 'test -s "$work/size"', "deep": 'test "$(cat "$work/size")" = 17'},
        "timeout": "10s",
    },
    "two": {
        "needs": ["one"],
        "script": 'echo x >> "$work/two.runs"; until [ -e "$work/go" ]; do sleep 0.05; done',
        "verify": {"cheap": "true"},
        "timeout": "1m",
    },
}


class Here:
    """A user of this machine with a home and a recipe."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / "work"
        self.work.mkdir()
        parameters = {"work": {"about": "folder", "default": str(self.work)}}
        made = {"name": "here", "about": "a test", "parameters": parameters, "steps": STEPS}
        profiles = {"old": {"about": "as it was", "flaws": {"RDTL-T016": "each GPU alone"}}}
        made |= {"secrets": {"TOKEN": "t"}, "profiles": profiles}
        (folder / "here.yaml").write_text(yaml.safe_dump(made))
        self.env = {"HOME": str(folder / "home"), "TOKEN": CANARY}

    def __call__(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        return rdtl("recipe", verb, "here.yaml", *words, cwd=self.folder, env=self.env)

    def planned(self) -> list[dict[str, str]]:
        steps: list[dict[str, str]] = json.loads(self("plan", "--json").stdout)["steps"]
        return steps

    def runs(self, step: str) -> int:
        path = self.work / f"{step}.runs"
        return len(path.read_text().split()) if path.exists() else 0

    def let_go(self) -> None:
        (self.work / "go").touch()


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


def test_a_plan_names_the_flaws_of_its_profile(here: Here) -> None:
    assert "RDTL-T016" in here("plan", "--profile", "old").stdout
    flaws = json.loads(here("plan", "--profile", "old", "--json").stdout)["flaws"]
    assert [(one["code"], one["severity"], one["what"], one["where"]) for one in flaws] == [
        ("RDTL-T016", "warning", "each GPU alone", "here, profile old")
    ]
    assert json.loads(here("plan", "--json").stdout)["flaws"] == []


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


def test_outputs_are_fetched_whole(here: Here) -> None:
    here.let_go()
    assert here("run").returncode == 0
    fetched = here("fetch", "one", "--out", "mine")
    assert fetched.returncode == 0, fetched.stderr
    assert (here.folder / "mine/one/size").read_text().strip() == str(len(CANARY))
    (here.work / "size").unlink()
    missing = here("fetch", "one", "--out", "mine")
    assert missing.returncode == 4
    assert (here.folder / "mine/one/size").exists()
    assert [path.name for path in (here.folder / "mine").iterdir()] == ["one"]
    assert "RDTL-U122" in here("fetch", "two", "--out", "mine").stderr


def test_fetched_outputs_keep_their_paths(here: Here) -> None:
    made = {"name": "here", "about": "a test", "working_directory": "~/deep"}
    script = "mkdir -p a b; echo 1 > a/r; echo 2 > b/r"
    steps = {"one": {"script": script, "outputs": ["a/r", "b/r"], "timeout": "10s"}}
    (here.folder / "here.yaml").write_text(yaml.safe_dump({**made, "steps": steps}))
    assert here("run").returncode == 0
    fetched = here("fetch", "one", "--out", "mine")
    assert fetched.returncode == 0, fetched.stderr
    folder = here.folder / "mine/one"
    found = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}
    assert found == {"a/r": "1\n", "b/r": "2\n"}


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
    found = secrets.read(["A", "B"], secrets.references([f"B=file:{tmp_path}/b"]))
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
            secrets.read(names, secrets.references(given), wants)
        assert raised.value.problem.code == code
        assert "value" not in raised.value.problem.where
        assert names != ["C"] or "opens the door" in raised.value.problem.why
    assert secrets.read(["A", "D"], {}, wants) == {"A": "one two=three", "D": ""}
    monkeypatch.setenv("D", "given")
    assert secrets.read(["D"], {}, wants) == {"D": "given"}
    assert secrets.present(["A", "B", "C"], {"B": f"file:{tmp_path}/b"}) == {"A": "one two=three"}


def test_what_nvidia_smi_says() -> None:
    assert gpu_line("0, 80589, 97887, 99") == "GPU 0: 78.7 of 95.6 GiB, 99 %"
