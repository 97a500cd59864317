"""Defined assets: ``configs/assets/NAME.yaml`` says where public bytes lie and what they must be.

A definition is held against the listing of a store before a byte is moved: names, counts,
sizes, digests. What does not fit is refused, with what the folder probably is instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from string import Formatter
from typing import Annotated

from pydantic import Field, field_validator

from launcher import config
from launcher.core.errors import RdtlError, RefusedError, UsageError
from launcher.schema_base import Section
from launcher.staging import stores
from launcher.staging import uri as uris
from launcher.staging.store import Listing, StoreEntry
from launcher.staging.uri import Uri

Size = Annotated[int, Field(ge=0)]


class ExpectedFile(Section):
    """What a file of an asset must be; what is unset is not known."""

    size: Size | None = None
    """Bytes."""
    sha256: str | None = None
    """Digest in hexadecimal, as the others."""
    md5: str | None = None
    """For stores that keep nothing better."""
    crc32c: str | None = None
    """For objects of Google's that were put together from parts."""

    @property
    def checksums(self) -> dict[str, str]:
        """Kind → value of what is known."""
        known = {"sha256": self.sha256, "md5": self.md5, "crc32c": self.crc32c}
        return {kind: value for kind, value in known.items() if value}


class Definition(Section):
    """A public asset."""

    about: str
    """What it is, in a sentence."""
    uri: str
    """Where it lies; {NAME} stands for a parameter."""
    parameters: dict[str, str] = Field(default={})
    """What a user may or, where it is empty, must set, with the values otherwise taken."""
    source: str
    """The page of its makers."""
    license: str
    """Licence of the contents."""
    bytes: Size | tuple[Size, Size]
    """Size of all its files, or the least and the most where it is not known exactly."""
    files: dict[str, ExpectedFile] = Field(default={})
    """The files that belong to it, with what is known of them; others are not staged."""
    patterns: dict[str, int] = Field(default={})
    """Where names are not all known: how many files fit each pattern. Everything is staged."""

    @field_validator("files", mode="before")
    @classmethod
    def _digest_alone(cls, value: dict[str, object]) -> dict[str, object]:
        return {path: {"sha256": v} if isinstance(v, str) else v for path, v in value.items()}

    @property
    def limits(self) -> tuple[int, int]:
        """Least and most bytes."""
        return self.bytes if isinstance(self.bytes, tuple) else (self.bytes, self.bytes)

    def place(self, settings: Mapping[str, str]) -> Uri:
        """Where it lies with these parameters; UsageError RDTL-G042 when one is missing or none."""
        values = {**self.parameters, **settings}
        wanted = {name for _, name, _, _ in Formatter().parse(self.uri) if name}
        unset = sorted(name for name in wanted if not values.get(name))
        unknown = sorted(set(settings) - set(self.parameters))
        if unset or unknown:
            raise UsageError(
                "RDTL-G042",
                f"parameter {(unset or unknown)[0]} "
                + ("must be set" if unset else "is none of this asset"),
                where=f"{self.uri} has {', '.join(sorted(self.parameters)) or 'no parameters'}",
                fix=f"--set {(unset or sorted(wanted) or ['NAME'])[0]}=VALUE",
            )
        return uris.parse(self.uri.format(**values))

    def problems(self, entries: Sequence[StoreEntry]) -> list[str]:
        """What is not as it must be, one phrase each; [] when this is the asset."""
        there = {entry.path: entry for entry in entries}
        found = [f"{path} is missing" for path in self.files if path not in there]
        found += [
            f"{path} has {there[path].size} bytes, not {file.size}"
            for path, file in self.files.items()
            if path in there and file.size not in (None, there[path].size)
        ]
        found += [
            f"{path} has another {kind}"
            for path, file in self.files.items()
            for kind, value in file.checksums.items()
            if path in there and there[path].checksums.get(kind, value) != value
        ]
        for pattern, count in self.patterns.items():
            fit = sum(fnmatchcase(path, pattern) for path in there)
            found += [f"{fit} files fit {pattern}, not {count}"] if fit != count else []
        size = sum(entry.size for entry in self.select(entries))
        least, most = self.limits
        if not found and not least <= size <= most:
            found.append(f"it has {size:,} bytes, not {least:,}" + f" to {most:,}" * (least < most))
        return found

    def select(self, entries: Sequence[StoreEntry]) -> tuple[StoreEntry, ...]:
        """The entries that belong to it, with the checksums that are known of them."""
        if not self.files:
            return tuple(entries)
        return tuple(
            replace(entry, checksums={**entry.checksums, **self.files[entry.path].checksums})
            for entry in entries
            if entry.path in self.files
        )


@dataclass(frozen=True)
class Wanted:
    """What a user asked for: a place, and the definition that it must fit, if any."""

    uri: Uri
    name: str = ""
    definition: Definition | None = None

    def list(self) -> Listing:
        """What lies there and is wanted. Raises what the store's listing does, and RDTL-G043."""
        found = self._found()
        if self.definition is None:
            return found
        if problems := self.definition.problems(found.entries):
            raise _refusal(self, problems, found.entries)
        return replace(found, entries=self.definition.select(found.entries))

    def _found(self) -> Listing:
        if self.definition and self.definition.files and self.uri.scheme in ("https", "http"):
            from launcher.staging.stores.https import WebStore  # most servers show no folders

            return WebStore().list(self.uri, list(self.definition.files))
        return stores.store_for(self.uri.scheme).list(self.uri)


def load(name: str) -> Definition:
    """The definition of that name; UsageError RDTL-U002 or RDTL-U001."""
    path = config.find("assets", name)
    return config.validate(Definition, config.read_yaml(path), str(path))


def wanted(text: str, fits: str | None = None, settings: Sequence[str] = ()) -> Wanted:
    """What ``text`` names: a URI, which must fit the asset ``fits``, or a defined asset."""
    values = dict(config.key_value(setting) for setting in settings)
    if uris.is_uri(text):
        return Wanted(uris.parse(text), fits or "", load(fits) if fits else None)
    definition = load(text)
    return Wanted(definition.place(values), text, definition)


def _refusal(asked: Wanted, problems: list[str], entries: Sequence[StoreEntry]) -> RdtlError:
    assert asked.definition is not None
    more = f", and {len(problems) - 2} more" if len(problems) > 2 else ""
    likely = _likely(asked, entries)
    return RefusedError(
        "RDTL-G043",
        f"this is not {asked.name}" + (f": it looks like {likely}" if likely else ""),
        where=f"{asked.uri}: {'; '.join(problems[:2])}{more}",
        why=f"{asked.name} is: {asked.definition.about}",
        fix=f"name the folder itself, or {asked.uri}/FOLDER when it lies deeper; "
        f"`rdtl stage in {asked.name}` takes it from its makers",
    )


def _likely(asked: Wanted, entries: Sequence[StoreEntry]) -> str:
    """What a folder that does not fit is instead, as far as names tell; empty when they do not."""
    assert asked.definition is not None
    paths = [entry.path for entry in entries]
    if asked.definition.files and _names_fit(asked.definition, paths):
        return "another version of it, or one that is not whole"
    known = {name: load(name) for name in config.names("assets")}
    for name, definition in known.items():
        telling = len(definition.files) + len(definition.patterns) > 2  # config.json tells nothing
        if not definition.problems(entries) or (telling and _names_fit(definition, paths)):
            return name
    for name, definition in sorted(known.items(), key=lambda item: item[0] != asked.name):
        for top in sorted({entry.path.partition("/")[0] for entry in entries if "/" in entry.path}):
            inside = [e.path.removeprefix(f"{top}/") for e in entries if e.path.startswith(top)]
            if _names_fit(definition, inside):
                return f"the folder above {name}; name {asked.uri}/{top}"
        if _names_fit(definition, [f"{asked.uri.name}/{entry.path}" for entry in entries]):
            return f"a folder inside {name}; name the one above"
    have = sum(path in asked.definition.files for path in paths)
    return f"a part of it ({have} of {len(asked.definition.files)} files)" if have else ""


def _names_fit(definition: Definition, paths: Sequence[str]) -> bool:
    there = set(paths)
    count: Callable[[str], int] = lambda p: sum(fnmatchcase(path, p) for path in there)  # noqa: E731
    fits = all(count(pattern) == number for pattern, number in definition.patterns.items())
    return bool(there) and fits and all(path in there for path in definition.files)
