"""``hf://datasets/OWNER/NAME[@REVISION][/PATH]``, ``hf://models/…``: the Hugging Face Hub.

The hub's client lists and uploads, rclone downloads. A revision is turned into its commit when
it is listed, so that what is copied is what was listed. The token is the one that ``hf auth login``
left, or HF_TOKEN; HF_ENDPOINT names a mirror.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from launcher.core.errors import RdtlError, RemoteError, UsageError
from launcher.staging import failures
from launcher.staging.store import Listing, Move, Remote, StoreEntry
from launcher.staging.stores.hf_card import card
from launcher.staging.stores.https import web
from launcher.staging.uri import Uri

KINDS = {"datasets": "dataset", "models": "model"}
REPOSITORY = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/(.+))?")


class Place(NamedTuple):
    """What a URI names on the hub."""

    kind: str
    name: str
    revision: str | None
    path: str


class HubStore:
    """A repository of data or of a model."""

    def list(self, uri: Uri, names: Sequence[str] | None = None) -> Listing:
        """Every file with SHA-256, or for small ones the name of their blob in git."""
        place = locate(uri)
        try:
            commit, files = _tree(place)
        except Exception as error:  # the client passes on errors of several libraries
            raise _failure(uri, place, error) from error
        below = f"{place.path}/" if place.path else ""
        if [file.path for file in files] == [place.path]:
            root = place.path.rpartition("/")[0]
            return Listing((_entry(uri.name, files[0]),), _remote(place, commit, root), single=True)
        entries = [_entry(file.path.removeprefix(below), file) for file in files]
        if not entries:
            raise failures.make("RDTL-G002", str(uri), "no file lies there")
        found = tuple(sorted(entries, key=lambda e: e.path))
        return Listing(found, _remote(place, commit, place.path))

    def upload(self, uri: Uri, folder: Path, paths: Sequence[str], move: Move) -> None:
        """All files in one commit, with a card (README.md) unless there is one.

        A repository that does not exist is made, private.
        """
        from huggingface_hub import CommitOperationAdd, HfApi

        place = locate(uri)
        api, name, kind, branch = HfApi(), place.name, place.kind, place.revision
        below = f"{place.path}/" if place.path else ""
        files: list[Any] = [CommitOperationAdd(below + path, folder / path) for path in paths]
        try:
            api.create_repo(name, repo_type=kind, private=True, exist_ok=True)
            if branch:
                api.create_branch(name, repo_type=kind, branch=branch, exist_ok=True)
            there = api.list_repo_files(name, repo_type=kind, revision=branch)
            if "README.md" not in [*there, *(file.path_in_repo for file in files)]:
                text = card(kind, name, folder, paths)
                files.append(CommitOperationAdd("README.md", text.encode()))
            message = f"{len(paths)} files by RDT Launcher"
            api.create_commit(name, files, commit_message=message, repo_type=kind, revision=branch)
        except Exception as error:
            raise _failure(uri, place, error) from error


def locate(uri: Uri) -> Place:
    """Kind, OWNER/NAME, revision and path; UsageError RDTL-G019 for another form."""
    match = REPOSITORY.fullmatch(uri.path)
    if uri.host not in KINDS or match is None:
        raise UsageError(
            "RDTL-G019",
            f"{str(uri)!r} names no repository of the hub",
            why="the hub keeps data and models apart, under names OWNER/NAME",
            fix="write hf://datasets/OWNER/NAME[@REVISION][/PATH] or hf://models/…",
        )
    return Place(KINDS[uri.host], match[1], match[2], match[3] or "")


def _tree(place: Place) -> tuple[str, list[Any]]:
    """The commit, and the file at the path or all files below it."""
    from huggingface_hub import HfApi, RepoFile
    from huggingface_hub.errors import EntryNotFoundError

    api, name, kind = HfApi(), place.name, place.kind
    found = api.repo_info(name, repo_type=kind, revision=place.revision, timeout=60)
    commit, path = str(found.sha), place.path
    try:
        tree = api.list_repo_tree(
            name, path or None, recursive=True, revision=commit, repo_type=kind
        )
        return commit, [item for item in tree if isinstance(item, RepoFile)]
    except EntryNotFoundError:  # it names a file, or nothing
        items = api.get_paths_info(name, [path], revision=commit, repo_type=kind)
        return commit, [item for item in items if isinstance(item, RepoFile)]


def _entry(path: str, file: Any) -> StoreEntry:
    checksums = {"sha256": file.lfs.sha256} if file.lfs else {"git-sha1": file.blob_id}
    return StoreEntry(path, file.size, checksums, file.blob_id)


def _remote(place: Place, commit: str, path: str) -> Remote:
    """The files' addresses; the token is sent to the hub alone, not to where it redirects."""
    from huggingface_hub import constants, get_token

    kind = "datasets/" if place.kind == "dataset" else ""
    address = f"{constants.ENDPOINT}/{kind}{place.name}/resolve/{quote(commit, safe='')}/"
    token = get_token()
    headers = ["Authorization", f"Bearer {token}"] if token else []
    # Addresses that the hub redirects to are signed for GET: sizes come from the listing.
    return web(address, path, headers, no_head=True)


def _failure(uri: Uri, place: Place, error: Exception) -> RdtlError:
    words = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
    if isinstance(error, ImportError):
        return failures.make("RDTL-G012", str(uri), words)
    if type(error).__name__ in ("RepositoryNotFoundError", "GatedRepoError"):
        other = "models" if place.kind == "dataset" else "datasets"
        return RemoteError(
            "RDTL-G016",
            "the hub shows no such repository to us",
            where=f"{uri}: {words}",
            why="the name is wrong, it is private or gated, or it is of the other kind",
            fix=f"check the name; hf auth login; or hf://{other}/{place.name}; for uploads of "
            f"yours: hf repos create {place.name} --type {place.kind} --private",
        )
    if type(error).__name__ in ("RevisionNotFoundError", "EntryNotFoundError"):
        return failures.make("RDTL-G002", str(uri), words)
    refused = re.search(r"\b40[13]\b", words)
    return failures.make("RDTL-G014" if refused else "RDTL-G011", str(uri), words)


def store() -> HubStore:
    """The adapter."""
    return HubStore()
