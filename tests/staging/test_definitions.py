"""Defined assets: all of them load and agree with each other; another folder is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import config
from launcher.core.errors import RefusedError, UsageError
from launcher.staging import definitions, fetch, transfer, uri
from launcher.staging.cache import Cache
from launcher.staging.store import StoreEntry
from tests.staging import servers

NAMES = config.names("assets")
SUITES = {"libero-spatial": 10, "libero-object": 10, "libero-goal": 10, "libero-10": 10,
          "libero-90": 90}  # fmt: skip
SMALL = """
about: two files for tests
uri: {uri}
source: https://example.org
license: MIT
bytes: 9
files:
  a.txt: {{size: 4}}
  sub/b.txt: 7bf8cac9c5d6bb8e1a5d0cb2e4e4d56d4e0e2a6b1f6b2b0f7f7f2b6c8a6f1e11
"""


@pytest.mark.parametrize("name", NAMES)
def test_every_definition_is_whole(name: str) -> None:
    found = definitions.load(name)
    settings = {key: "x" for key, value in found.parameters.items() if not value}
    assert found.place(settings).name
    assert bool(found.files) != bool(found.patterns)
    least, most = found.limits
    known = [file.size for file in found.files.values()]
    assert least <= most and sum(size or 0 for size in known) <= most
    if all(size is not None for size in known) and known:
        assert least == most == sum(size or 0 for size in known)
    for file in found.files.values():
        for kind, value in file.checksums.items():
            assert len(value) == {"sha256": 64, "md5": 32, "crc32c": 8}[kind]
            assert set(value) <= set("0123456789abcdef")
    assert found.license and found.source.startswith("https://")


def test_the_suites_are_those_of_the_embeddings() -> None:
    embeddings = definitions.load("libero-t5-embeddings").files
    for name, count in SUITES.items():
        files = definitions.load(name).files
        suite = name.replace("-", "_")
        expected = {path.split("/")[1].removesuffix(".pt") for path in embeddings
                    if path.startswith(f"{suite}/")}  # fmt: skip
        assert {path.removesuffix("_demo.hdf5") for path in files} == expected
        assert len(files) == count


def entries(name: str, below: str = "") -> list[StoreEntry]:
    found = definitions.load(name)
    files = found.files or {pattern.replace("*", str(number), 1).replace("*", "0"): None
                            for pattern, count in found.patterns.items()
                            for number in range(count)}  # fmt: skip
    each = found.limits[0] // len(files) + 1
    return [StoreEntry(below + path, (file.size if file and file.size is not None else each))
            for path, file in files.items()]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "there", "looks_like"),
    [
        ("libero-goal", entries("libero-object"), "libero-object"),
        ("rdt-1b", entries("pi05-base"), "pi05-base"),
        ("libero-object", entries("libero-object", "libero_object/"), "the folder above"),
        ("libero-object", entries("libero-object")[:7], r"a part of it \(7 of 10"),
        ("pi05-base", [StoreEntry(e.path.removeprefix("params/"), e.size)
                       for e in entries("pi05-base") if e.path.startswith("params/")],
         "RDTL-G043: this is not pi05-base"),
        ("openpi-libero-object", entries("openpi-libero-object-waypoints"),
         "openpi-libero-object-waypoints"),
        ("t5-v1_1-xxl", [StoreEntry(e.path, e.size - (e.path == "pytorch_model.bin"))
                         for e in entries("t5-v1_1-xxl")], "another version of it"),
    ],
)  # fmt: skip
def test_a_wrong_folder_is_refused_with_what_it_is(
    asked: str, there: list[StoreEntry], looks_like: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launcher.staging.store import Listing, Remote

    listing = Listing(tuple(there), Remote("x:"))
    monkeypatch.setattr(definitions.Wanted, "_found", lambda self: listing)
    with pytest.raises(RefusedError, match=f"RDTL-G043[\\s\\S]*{looks_like}|{looks_like}"):
        definitions.wanted("rclone:gg1:some/folder", asked).list()


def test_what_fits_is_accepted_and_only_its_files_are_taken(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a web server that shows no folders, with digests of the definition as the proof."""
    import hashlib

    folder = tmp_path / "web"
    servers.write_tree(folder / "it", {"a.txt": b"aaaa", "sub/b.txt": b"bbbbb", "other": b"x" * 99})
    digest = hashlib.sha256(b"bbbbb").hexdigest()
    (tmp_path / "configs/assets").mkdir(parents=True)
    with servers.serve("http", folder, tmp_path / "home") as server:
        text = SMALL.format(uri=f"{server.url}/it")
        whole = text.replace(text.split("sub/b.txt: ")[1].strip(), f'"{digest}"')
        (tmp_path / "configs/assets/small.yaml").write_text(whole)
        (tmp_path / "configs/assets/wrong.yaml").write_text(text)
        monkeypatch.chdir(tmp_path)
        wanted = definitions.wanted("small")
        staged = fetch.bring(cache, transfer.Order(wanted.uri, listed=wanted.list))
        assert [file.path for file in staged.asset.manifest.files] == ["a.txt", "sub/b.txt"]
        (folder / "it" / "sub" / "b.txt").write_bytes(b"bbbbc")  # same size, another content
        with pytest.raises(Exception, match="RDTL-G003"):
            fetch.bring(cache, transfer.Order(wanted.uri, listed=wanted.list, fresh=True))


@pytest.mark.parametrize(
    ("text", "settings", "code"),
    [
        ("openpi-libero-object", [], "RDTL-G042"),
        ("openpi-libero-object", ["root=x", "wrong=1"], "RDTL-G042"),
        ("openpi-libero-object", ["root"], "RDTL-U004"),
        ("openpi-libero-object", ["root=../x"], "RDTL-G019"),
        ("nothing-such", [], "RDTL-U002"),
    ],
)
def test_bad_parameters(text: str, settings: list[str], code: str) -> None:
    with pytest.raises(UsageError, match=code):
        definitions.wanted(text, None, settings)


def test_parameters_make_the_place() -> None:
    asked = definitions.wanted("openpi-libero-object", None, ["remote=mine", "root=a b/c"])
    assert asked.uri == uri.parse("rclone:mine:a b/c/libero/libero_object_no_noops")
