"""The commands that pages show: fenced `bash` and `console` blocks, and code in sentences."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>run|needs: [^>]+?) -->\n+)?^```(?P<kind>bash|console)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SPAN = re.compile(r"(?<!`)`(rdtl [^`\n]+)`(?!`)")
KEPT = re.compile(r"^[A-Z_]+=\$\((.*?)\)")
"""A variable that keeps what a command prints."""
SEPARATORS = {"&&", "||", ";", "|", "&"}


@dataclass(frozen=True)
class Block:
    """A fenced block; ``mark`` says whether a test runs it or what it would need."""

    page: str
    line: int
    mark: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[list[str]]:
        """Its commands as words, without variables before them and without redirections."""
        found: list[list[str]] = []
        for line in self.text.replace("\\\n", " ").splitlines():
            line = KEPT.sub(r"\1", line)
            lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<")
            lexer.whitespace_split = True
            found.append([])
            for word in lexer:
                if word in SEPARATORS:
                    found.append([])
                else:
                    found[-1].append(word)
        return [words for line in found if (words := _plain(line))]


def _plain(words: list[str]) -> list[str]:
    if "<" in words:
        words = words[: words.index("<")]
    while words and (words[0] == "export" or re.match(r"[A-Z_]+=", words[0])):
        words = words[1:]
    return words


def blocks() -> Iterator[Block]:
    """All blocks of all pages that show commands."""
    for page in PAGES:
        text = page.read_text()
        for found in FENCE.finditer(text):
            body = found["text"]
            if found["kind"] == "console":  # what it prints stands below each command
                lines = [line[2:] for line in body.splitlines() if line.startswith("$ ")]
                body = "".join(f"{line}\n" for line in lines)
            line = text.count("\n", 0, found.start("text"))
            yield Block(str(page.relative_to(ROOT)), line, found["mark"] or "", body)


def spans() -> Iterator[tuple[str, str]]:
    """Commands inside sentences, such as `rdtl runs show RUN`: where, and the text."""
    for page in PAGES:
        text = page.read_text()
        for found in SPAN.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield f"{page.relative_to(ROOT)}:{line}", found[1]
