"""``rdtl runs watch``: runs as they go on, drawn in a terminal.

:mod:`figures` reads numbers from files, :mod:`draw` makes lines of text of them, :mod:`live`
repeats that. Only :mod:`draw` and :mod:`live` import rich.
"""
