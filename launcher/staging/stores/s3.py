"""``s3://BUCKET/PATH``: Amazon's store and everything that speaks its protocol.

Credentials come from where Amazon's own tools look (``AWS_…``, ``~/.aws``); ``AWS_ENDPOINT_URL_S3``
or ``AWS_ENDPOINT_URL`` names another server. Without any credentials the bucket must be public.
"""

from __future__ import annotations

import os
from pathlib import Path

from launcher.staging.store import ALONE, RcloneStore, Remote
from launcher.staging.uri import Uri

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
SOURCES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


class S3Store(RcloneStore):
    """A bucket; MD5 is there unless somebody uploaded in parts without saying it."""

    def remote(self, uri: Uri) -> Remote:
        """A remote that takes its credentials from the environment, or none."""
        endpoint = next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), "")
        values = {
            "TYPE": "s3",
            "PROVIDER": "Other" if endpoint else "AWS",
            "ENDPOINT": endpoint,
            "REGION": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", ""),
            "ENV_AUTH": "true" if has_credentials() else "false",
            "NO_CHECK_BUCKET": "true",
        }
        settings = {f"RCLONE_CONFIG_RDTLS3_{key}": value for key, value in values.items()}
        return Remote(f"rdtls3:{uri.host}/{uri.path}", {**ALONE, **settings})


def has_credentials() -> bool:
    """Whether Amazon's tools would find credentials here without asking the network."""
    shared = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    return any(os.environ.get(name) for name in SOURCES) or Path(shared).expanduser().exists()


def store() -> S3Store:
    """The adapter."""
    return S3Store()
