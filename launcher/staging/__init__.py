"""Staging: bytes are brought where they are needed, once, and proven there.

::

    URI ──► store (lists) ──► what is missing ──► engine (rclone) ──► proof ──► cache
    uri.py  stores/*          fetch.py            engine.py            verify.py   cache.py

Stores know how to list and how rclone reaches them, the engine moves, nothing else moves bytes.
"""
