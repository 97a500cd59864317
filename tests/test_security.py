"""What must not stand in the sources, by their syntax trees; exceptions say why they may.

docs/security.md names this file for what it claims of the whole tree.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCANNED = ("launcher", "jobs", "rdt", "containers", "docs", "benchmarks", "tests")

OWN = "written and read by one user in a run directory that only that user can write to"
ALLOWED = {
    ("launcher/config.py", "yaml"): "a SafeLoader that also refuses a key that stands twice",
    ("launcher/submit/local.py", "unpickles"): OWN,
    ("launcher/core/local_task.py", "unpickles"): OWN,
    ("rdt/sim/upstream.py", "unpickles"): "resolves nothing but what an array of numbers names",
    ("jobs/place.py", "listens to all"): "asks whether a port is free, and never listens",
    (
        "tests/cluster/network.py",
        "listens to all",
    ): "asks whether a port is free, and never listens",
    ("tests/core/test_host_task.py", "listens to all"): "holds a port that a task then finds taken",
    ("jobs/host_probe.py", "listens to all"): "whether other machines reach it is the question; "
    "it says a random name and reads nothing",
    ("tests/rdt/test_encoders_public.py", "unpickles"): "shows what a reader of pickles would do",
    ("tests/data/test_stores.py", "unpickles"): "what multiprocessing does with our own object",
    ("tests/report/test_exports.py", "runs text"): "a constant: LeRobot's own function, pinned",
    ("tests/cluster/daemons.py", "open to all"): "a node's /dev/fuse, as udev makes it",
    (
        "tests/core/test_node_local.py",
        "open to all",
    ): "a folder that others can write to is the case",
    (
        "tests/images/test_runtime_contract.py",
        "open to all",
    ): "a container's other user writes there",
    ("tests/recipes/failing.py", "torch.load"): "causes the failure; the file does not exist",
}
"""(file, rule): why it is right there."""

UNPICKLERS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads",
    "marshal.load", "marshal.loads", "shelve.open", "joblib.load", "dill.load", "dill.loads",
    "pandas.read_pickle",
}  # fmt: skip
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
REQUESTS = {
    "urllib.request.urlopen", "http.client.HTTPConnection", "http.client.HTTPSConnection",
    "socket.create_connection", *(f"{module}.{verb}" for module in ("requests", "httpx")
                                  for verb in ("get", "post", "put", "delete", "head", "request")),
}  # fmt: skip
EVERYWHERE = ("''", "'0.0.0.0'", "'::'")


def word(call: ast.Call, name: str) -> str | None:
    """The source of a keyword argument."""
    return next((ast.unparse(one.value) for one in call.keywords if one.arg == name), None)


def splat(call: ast.Call) -> bool:
    """Whether keywords come from a mapping, which the tree does not show."""
    return any(one.arg is None for one in call.keywords)


Rule = Callable[[str, ast.Call], bool]
RULES: dict[str, Rule] = {
    "unpickles": lambda name, call: name in UNPICKLERS or word(call, "allow_pickle") == "True",
    "torch.load": lambda name, call: name == "torch.load" and word(call, "weights_only") != "True",
    "yaml": lambda name, call: name in {"yaml.load", "yaml.load_all", "yaml.unsafe_load",
                                        "yaml.full_load", "yaml.full_load_all"},
    "runs text": lambda name, call: name in {"eval", "exec", "builtins.eval", "builtins.exec"},
    "shell": lambda name, call: name in SHELLS or word(call, "shell") not in (None, "False"),
    "unpacks": lambda name, call: (
        name.rsplit(".", 1)[-1] in ("extractall", "unpack_archive")
        and word(call, "filter") not in ("'data'", "'tar'")
    ),
    "temporary name": lambda name, call: name in ("tempfile.mktemp", "os.tempnam", "os.tmpnam"),
    "no time limit": lambda name, call: (
        name in REQUESTS and word(call, "timeout") is None and not splat(call)
        and not (name == "socket.create_connection" and len(call.args) > 1)
    ),
    "no certificate": lambda name, call: (
        name == "ssl._create_unverified_context" or word(call, "verify") == "False"
    ),
    "listens to all": lambda name, call: any(
        isinstance(a, ast.Tuple) and a.elts and ast.unparse(a.elts[0]) in EVERYWHERE
        for a in call.args
    ) and name.rsplit(".", 1)[-1] in ("bind", "create_server", "HTTPServer", "ThreadingHTTPServer"),
    "open to all": lambda name, call: (
        name.endswith("chmod") and any(ast.unparse(a) in ("511", "438") for a in call.args)
    ),
}  # fmt: skip


def imported(tree: ast.Module) -> dict[str, str]:
    """What names of a module stand for: ``np`` for numpy, ``urlopen`` for urllib.request.…"""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return names


def broken(text: str) -> Iterator[tuple[str, int]]:
    """(rule, line) for each call of a module that breaks one, and each subclass of an unpickler."""
    tree = ast.parse(text)
    names = imported(tree)

    def full(node: ast.expr) -> str:
        """``module.function`` as it was imported; other beginnings are ``?``."""
        if isinstance(node, ast.Attribute):
            return f"{full(node.value)}.{node.attr}"
        return names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"

    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(full(b) in UNPICKLERS for b in node.bases):
            yield "unpickles", node.lineno
        if isinstance(node, ast.Call):
            name = full(node.func)
            yield from ((rule, node.lineno) for rule, breaks in RULES.items() if breaks(name, node))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("import pickle\npickle.loads(data)", "unpickles"),
        ("from pickle import loads as read\nread(data)", "unpickles"),
        ("import pickle\nclass Mine(pickle.Unpickler): pass", "unpickles"),
        ("import numpy as np\nnp.load(p, allow_pickle=True)", "unpickles"),
        ("import torch\ntorch.load(p)", "torch.load"),
        ("import torch\ntorch.load(p, weights_only=False)", "torch.load"),
        ("import yaml\nyaml.load(t, Loader=yaml.Loader)", "yaml"),
        ("eval(text)", "runs text"),
        ("import subprocess as s\ns.run(text, shell=True)", "shell"),
        ("import os\nos.system(text)", "shell"),
        ("packed.extractall(folder)", "unpacks"),
        ("import shutil\nshutil.unpack_archive(a, b)", "unpacks"),
        ("from tempfile import mktemp\nmktemp()", "temporary name"),
        ("from urllib.request import urlopen\nurlopen(a)", "no time limit"),
        ("import ssl\nssl._create_unverified_context()", "no certificate"),
        ("client.get(a, verify=False)", "no certificate"),
        ("path.chmod(0o777)", "open to all"),
        ("s.bind(('', 80))", "listens to all"),
    ],
)
def test_what_breaks_a_rule_is_seen(text: str, rule: str) -> None:
    assert {name for name, _ in broken(text)} == {rule}


def test_what_keeps_the_rules_is_not_seen() -> None:
    text = """
import torch, yaml, subprocess
torch.load(p, weights_only=True)
yaml.safe_load(t)
subprocess.run([a, b])
packed.extractall(folder, filter="data")
network.eval()
urlopen(a, timeout=3)
path.chmod(0o600)
"""
    assert list(broken(text)) == []


def test_nothing_of_the_tree_breaks_a_rule() -> None:
    found: dict[tuple[str, str], list[int]] = {}
    for path in sorted(path for package in SCANNED for path in (ROOT / package).rglob("*.py")):
        for rule, line in broken(path.read_text()):
            found.setdefault((str(path.relative_to(ROOT)), rule), []).append(line)
    assert {place: lines for place, lines in found.items() if place not in ALLOWED} == {}
    assert set(ALLOWED) - set(found) == set(), "an exception that nothing needs any more"
