"""The stores, one module each; a module is imported when its scheme is used."""

from __future__ import annotations

import importlib

from launcher.staging.store import Store
from launcher.staging.uri import Scheme

MODULES: dict[Scheme, str] = {
    "gs": "gcs",
    "s3": "s3",
    "rclone": "rclone",
    "hf": "hf",
    "https": "https",
    "http": "https",
    "ssh": "ssh",
    "file": "file",
}


def store_for(scheme: Scheme) -> Store:
    """The adapter of a scheme: ``stores/NAME.py`` has a function ``store() -> Store``."""
    module = importlib.import_module(f"launcher.staging.stores.{MODULES[scheme]}")
    found: Store = module.store()
    return found
