"""Reads scripts of recipes as far as is needed to see where values could be split or shown.

Not a shell: quotes, ``$(…)`` and comments are followed, here-documents are left out (nothing
is split in them).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)")
BUILT_IN = re.compile(
    r"^\s*(?:(?:if|then|else|elif|while|until|do|!|\{|\()\s+)*"
    r"(?:printf|echo|export|local|test|\[\[?|:|case|\w+=\S*\s*$)"
)
"""Beginnings of commands that the shell does itself: their words are in no process list."""
HERE_DOCUMENT = re.compile(r"(<<-?[ \t]*['\"]?(\w+)['\"]?[^\n]*\n)(.*?)(?=^\t*\2$)", re.S | re.M)


def _without_documents(script: str) -> str:
    """The script with empty here-documents, each line at its place."""
    return HERE_DOCUMENT.sub(lambda found: found[1] + "\n" * found[3].count("\n"), script)


def unquoted(script: str) -> Iterator[tuple[int, str]]:
    """Line number and name of every variable that stands outside quotes."""
    script = _without_documents(script)
    stack, line, at = [""], 1, 0
    while at < len(script):
        sign, top = script[at], stack[-1]
        line += sign == "\n"
        if sign == "\\" and top != "'":
            at += 1
            line += script[at : at + 1] == "\n"
        elif top == "'":
            if sign == "'":
                stack.pop()
        elif top == "((":  # arithmetic: its result is a number
            if script.startswith("))", at):
                stack.pop()
                at += 1
        elif script.startswith("$((", at):
            stack.append("((")
            at += 2
        elif script.startswith("$(", at):
            stack.append("")
            at += 1
        elif sign in "\"'" and (sign == '"' or top != '"'):
            stack.pop() if sign == top else stack.append(sign)
        elif sign == ")" and top == "" and len(stack) > 1:
            stack.pop()
        elif sign == "#" and top == "" and script[at - 1 : at] in ("", " ", "\n", "\t"):
            at += len(script[at:].partition("\n")[0]) - 1
        elif top == "" and (found := VARIABLE.match(script, at)):
            yield line, found[1]
        at += 1


def commands(script: str) -> Iterator[tuple[int, str]]:
    """Line number and text of every simple command, roughly: cut at newlines, ; | and &."""
    joined = re.sub(r"\\\n", "  ", _without_documents(script))
    for number, text in enumerate(joined.split("\n"), 1):
        for part in re.split(r"&&|\|\||[;|]|\$\(", text):
            if part.strip() and not part.strip().startswith("#"):
                yield number, part


def shown(script: str, secrets: Collection[str]) -> Iterator[tuple[int, str]]:
    """Line number and name of every secret that becomes a word of a program."""
    for number, text in commands(script):
        if not BUILT_IN.match(text):
            before_redirection = re.split(r"<<<|>", text)[0]
            for name in VARIABLE.findall(before_redirection):
                if name in secrets:
                    yield number, name
