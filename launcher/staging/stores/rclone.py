"""``rclone:REMOTE:PATH``: any of rclone's stores, as the user has configured it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from launcher.core.errors import RdtlError, RemoteError
from launcher.staging import remote_names
from launcher.staging.store import Listing, RcloneStore, Remote
from launcher.staging.uri import Uri


class Configured(RcloneStore):
    """A remote of the user's rclone.conf, or of ``RCLONE_CONFIG_REMOTE_…``."""

    def remote(self, uri: Uri) -> Remote:
        """The remote as it is called there."""
        return Remote(f"{uri.host}:{uri.path}")

    def list(self, uri: Uri, names: Sequence[str] | None = None) -> Listing:
        """What lies there; RemoteError RDTL-G014 with what is near for an unknown remote."""
        try:
            return super().list(uri, names)
        except RdtlError as error:
            if "didn't find section" in error.problem.where:
                raise _unknown(uri) from error
            raise


def _unknown(uri: Uri) -> RemoteError:
    names = remote_names.known()
    near = difflib.get_close_matches(uri.host, names, n=1, cutoff=0.4)
    return RemoteError(
        "RDTL-G014",
        f"rclone knows no remote {uri.host} here" + (f"; did you mean {near[0]}?" if near else ""),
        where=str(uri),
        why=f"it knows {', '.join(names) or 'none'}",
        fix=f"rdtl stage login {uri.host}, or the name that it has here",
    )


def store() -> Configured:
    """The adapter."""
    return Configured()
