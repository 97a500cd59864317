"""``gs://BUCKET/PATH``: Google Cloud Storage. gcsfs lists, rclone moves.

gcsfs knows CRC32C as well, which every object has; MD5 is missing where an object was put together
from parts. Credentials: GOOGLE_APPLICATION_CREDENTIALS, gcloud's own file, or Google's machine;
without any the bucket must be public.
"""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher.core.errors import RdtlError
from launcher.staging import failures
from launcher.staging.store import ALONE, Listing, RcloneStore, Remote, StoreEntry
from launcher.staging.uri import Uri

NAME = "RCLONE_CONFIG_RDTLGS_"
WAIT_S = 20.0
"""For an answer; gcsfs asks six times."""
PRODUCT = Path("/sys/class/dmi/id/product_name")


class GcsStore(RcloneStore):
    """A bucket of Google's, or of an emulator that STORAGE_EMULATOR_HOST names."""

    def list(self, uri: Uri, names: Sequence[str] | None = None) -> Listing:
        """Everything below ``uri``, with MD5, CRC32C and generation."""
        place = f"{uri.host}/{uri.path}".rstrip("/")
        try:
            found: dict[str, Any] = file_system().find(place, detail=True)
        except Exception as error:  # gcsfs passes on errors of several libraries
            raise _failure(uri, error) from error
        # A name that ends with / is a mark that some tools leave for a folder.
        infos = {key: info for key, info in found.items() if not info["name"].endswith("/")}
        if not infos:
            raise failures.make("RDTL-G002", str(uri), "no object lies there")
        if list(infos) == [place]:
            above = self.remote(replace(uri, path=uri.path.rpartition("/")[0]))
            return Listing((_entry(uri.name, infos[place]),), above, single=True)
        entries = [_entry(key.removeprefix(f"{place}/"), info) for key, info in infos.items()]
        return Listing(tuple(sorted(entries, key=lambda e: e.path)), self.remote(uri))

    def remote(self, uri: Uri) -> Remote:
        """How rclone reaches it, with the same credentials."""
        emulator = _emulator()
        known = has_credentials()
        values = {
            "TYPE": "google cloud storage",
            "ANONYMOUS": str(not known).lower(),
            "ENV_AUTH": str(known).lower(),
            "BUCKET_POLICY_ONLY": "true",
            "NO_CHECK_BUCKET": "true",
            "ENDPOINT": f"{emulator}/storage/v1/" if emulator else "",
        }
        settings = {NAME + key: value for key, value in values.items()}
        return Remote(f"rdtlgs:{uri.host}/{uri.path}", {**ALONE, **settings})


def file_system() -> Any:
    """gcsfs with these credentials, with nothing remembered from earlier listings."""
    # Read when gcsfs is imported, and the plain class by its own name in case that was before:
    # the other one first asks over gRPC for the kind of bucket, which behind many proxies and
    # against every emulator takes a minute of silence for each call.
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    from gcsfs.core import GCSFileSystem

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs a traceback a retry
    token = "google_default" if has_credentials() else "anon"
    options = {"use_listings_cache": False, "skip_instance_cache": True, "requests_timeout": WAIT_S}
    return GCSFileSystem(token=token, endpoint_url=_emulator(), **options)


def has_credentials() -> bool:
    """Whether Google's libraries would find credentials; the network is not asked."""
    if _emulator():
        return False
    if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return True
    folder = os.environ.get("CLOUDSDK_CONFIG", "~/.config/gcloud")
    if Path(folder, "application_default_credentials.json").expanduser().exists():
        return True
    return PRODUCT.is_file() and "Google" in PRODUCT.read_text(encoding="utf-8")


def _emulator() -> str | None:
    address = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    return address if "://" in address or not address else f"http://{address}"


def _entry(path: str, info: dict[str, Any]) -> StoreEntry:
    named = {"md5": info.get("md5Hash"), "crc32c": info.get("crc32c")}
    checksums = {kind: base64.b64decode(word).hex() for kind, word in named.items() if word}
    return StoreEntry(path, int(info["size"]), checksums, str(info.get("generation", "")))


def _failure(uri: Uri, error: Exception) -> RdtlError:
    words = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
    if isinstance(error, ImportError):
        return failures.make("RDTL-G012", str(uri), words)
    if isinstance(error, FileNotFoundError):  # also for a bucket that is not there
        return failures.make("RDTL-G002", str(uri), words)
    if isinstance(error, PermissionError) or getattr(error, "code", 0) in (401, 403):
        return failures.make("RDTL-G014", str(uri), words)
    if type(error).__module__.startswith("google.auth"):
        return failures.make("RDTL-G014", str(uri), words)
    return failures.make("RDTL-G011", str(uri), words)


def store() -> GcsStore:
    """The adapter."""
    return GcsStore()
