"""What names a place, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.core.errors import UsageError
from launcher.staging import uri


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("gs://bucket/a b/é?#%41", "gs://bucket/a b/é?#%41"),
        ("s3://bucket", "s3://bucket/"),
        ("s3://bucket/x/", "s3://bucket/x"),
        ("rclone:gg1:root/x y/", "rclone:gg1:root/x y"),
        ("rclone:gg1://root/x", "rclone:gg1:/root/x"),
        ("rclone:gg1:/", "rclone:gg1:/"),
        ("rclone:gg1:", "rclone:gg1:"),
        ("hf://datasets/owner/name/data", "hf://datasets/owner/name/data"),
        ("https://host:8443/a%20b/c", "https://host:8443/a%20b/c"),
        ("http://127.0.0.1:9/x", "http://127.0.0.1:9/x"),
        ("ssh://me@host:22022/data/x", "ssh://me@host:22022/data/x"),
        ("ssh://[::1]:22/data", "ssh://[::1]:22/data"),
        ("file:///a%20b/%25", "file:///a%20b/%25"),
    ],
)
def test_one_place_has_one_text(text: str, canonical: str) -> None:
    found = uri.parse(text)
    assert str(found) == canonical
    assert uri.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "/abs", "../x", "gs:/b/x", "gs://", "gs:///x", "ftp://h/x", "GS//b",
        "s3://b/../other/x", "s3://b/a/./x", "file://host/x", "file://relative",
        "rclone:gg1", "rclone::x", "rclone:gg1,token=x:p", "rclone:gg1/x:p", "rclone:a:../x",
        "rclone:-vv:x", "rclone:--dump:x", "rclone: gg1:x", "rclone:gg1 :x",
        "https://host/x?token=abc", "https://host/x#y", "http://example.org/x",
        "https:///x", "https://host:port/x", "https://host/%2e%2e/x",
        "gs://b/new\nline", "gs://b/nul\0", "https://h/%0a", "https://h/%00",
    ],
)  # fmt: skip
def test_what_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="RDTL-G019"):
        uri.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://me:CANARY@host/x", "s3://key:CANARY@bucket/x", "ssh://me:CANARY@host/x",
        "https://CANARY@host/x", "https://host/x?sig=CANARY", "gs://CANARY@b/x",
    ],
)  # fmt: skip
def test_a_secret_in_a_uri_is_refused_without_being_told(text: str) -> None:
    with pytest.raises(UsageError, match="RDTL-G019") as caught:
        uri.parse(text)
    assert "CANARY" not in str(caught.value)


@given(
    st.text(max_size=60)
    | st.from_regex(r"(gs|s3|https|http|ssh|file|hf|rclone)(://|:)[^\0]{0,40}", fullmatch=True)
)
def test_any_text_is_a_place_or_a_refusal(text: str) -> None:
    try:
        found = uri.parse(text)
    except UsageError as error:
        assert error.problem.code == "RDTL-G019"
        return
    assert uri.parse(str(found)) == found
    assert ".." not in found.path.split("/")
    assert "\n" not in str(found)
