"""Manifests: what is written is read back; what comes from elsewhere is believed nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.core import manifest
from launcher.core.errors import RdtlError
from launcher.core.files import dump_json
from launcher.core.manifest import File, Manifest

DIGEST = "0" * 64


def text_of(*files: object) -> str:
    return json.dumps({"format": manifest.FORMAT, "files": list(files)})


def entry(path: object, size: object = 1, sha256: object = DIGEST) -> dict[str, object]:
    return {"path": path, "size": size, "sha256": sha256}


def test_what_is_written_is_read_back_and_order_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "é x").write_bytes(b"12345")
    (tmp_path / "a").write_bytes(b"")
    made = manifest.make(tmp_path)
    assert [(file.path, file.size) for file in made.files] == [("a", 0), ("b/é x", 5)]
    assert manifest.parse(made.text, "here") == made
    assert Manifest.of(reversed(made.files)).digest == made.digest
    assert manifest.differences(tmp_path, made) == []


@pytest.mark.parametrize(
    "path",
    [
        "../x", "a/../../x", "/etc/passwd", "", ".", "..", "a//b", "a/", "./a", "a\nb", "a\0b",
        "a\ud800", "x" * 256, "/".join(["d" * 200] * 30), 7, None, ["a"],
    ],
)  # fmt: skip
def test_a_path_that_could_leave_the_folder_or_cannot_exist_is_refused(path: object) -> None:
    with pytest.raises(RdtlError, match="RDTL-G020"):
        manifest.parse(text_of(entry(path)), "here")


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{}", "{", "\ufeff{}", '{"format": "rdtl-manifest-1"}',
        '{"format": "other", "files": []}', text_of([]), text_of({}), text_of("a"),
        text_of(entry("a", -1)), text_of(entry("a", True)), text_of(entry("a", 1.0)),
        text_of(entry("a", "1")), text_of(entry("a", 1, "0" * 63)),
        text_of(entry("a", 1, "Z" * 64)),
        text_of(entry("a", 1, 5)), text_of(entry("a"), entry("a")),
        text_of(entry("a"), entry("a/b")),
        text_of({**entry("a"), "more": 1}), "[" * 100_000, "1" * 5000, '{"format": NaN}',
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(RdtlError, match="RDTL-G020"):
        manifest.parse(text, "here")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"\xff\xfe\x00rubbish")
    with pytest.raises(RdtlError, match="RDTL-G020"):
        manifest.read(tmp_path / "m")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
wild = st.fixed_dictionaries(
    {"format": st.just(manifest.FORMAT) | json_values},
    optional={
        "files": json_values
        | st.lists(
            st.fixed_dictionaries(
                {
                    "path": st.text() | st.sampled_from(["a", "a/b", "../a", "/a"]) | json_values,
                    "size": st.integers() | json_values,
                    "sha256": st.just(DIGEST) | json_values,
                }
            )
        )
    },
)


@given(st.binary() | st.text() | wild.map(json.dumps))
def test_anything_is_a_safe_manifest_or_a_refusal(data: str | bytes) -> None:
    try:
        found = manifest.parse(data, "here")
    except RdtlError as error:
        assert error.problem.code == "RDTL-G020"
        return
    top = Path("/top")
    for file in found.files:
        assert Path(os.path.normpath(top / file.path)).is_relative_to(top)
        assert "/" not in (file.path[:1], file.path[-1:])
    assert manifest.parse(found.text, "again") == found


@given(st.lists(st.tuples(st.text(min_size=1, max_size=20), st.integers(0, 2**60)), max_size=8))
def test_what_can_be_written_can_be_read(files: list[tuple[str, int]]) -> None:
    try:
        made = Manifest.of(File(path, size, DIGEST) for path, size in files)
    except RdtlError:
        return
    assert manifest.parse(made.text.encode("utf-8"), "here") == made
    listed = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in made.files]
    assert made.text == dump_json({"format": manifest.FORMAT, "files": listed})


def test_differences_names_each_one(tmp_path: Path) -> None:
    for name in ("same", "altered", "shorter", "gone"):
        (tmp_path / name).write_bytes(b"12345")
    made = manifest.make(tmp_path)
    times = (tmp_path / "altered").stat()
    (tmp_path / "altered").write_bytes(b"12346")  # same length, same time
    os.utime(tmp_path / "altered", ns=(times.st_atime_ns, times.st_mtime_ns))
    (tmp_path / "shorter").write_bytes(b"1234")
    (tmp_path / "gone").unlink()
    (tmp_path / "more").write_bytes(b"")
    assert [text.split(":")[0] for text in manifest.differences(tmp_path, made)] == [
        "altered", "gone", "more", "shorter",
    ]  # fmt: skip


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    assert [file.path for file in manifest.make(tmp_path).files] == ["link/file", "real/file"]
    (tmp_path / "real" / "up").symlink_to("..")
    with pytest.raises(RdtlError, match="RDTL-G023") as caught:
        manifest.make(tmp_path)
    assert "loop" in caught.value.problem.why


def make_odd(folder: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(folder / "x")
    elif kind == "to nothing":
        (folder / "x").symlink_to("nowhere")
    elif kind == "to itself":
        (folder / "x").symlink_to("x")
    else:
        (folder / os.fsdecode({"control": b"a\nb", "no text": b"\xff\xfe"}[kind])).write_bytes(b"x")


@pytest.mark.parametrize("kind", ["pipe", "to nothing", "to itself", "control", "no text"])
def test_what_cannot_be_staged_is_not_left_out_silently(tmp_path: Path, kind: str) -> None:
    make_odd(tmp_path, kind)
    with pytest.raises(RdtlError, match="RDTL-G023"):
        manifest.make(tmp_path)
