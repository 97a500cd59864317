"""In: a URI becomes a whole, proven asset of the cache, by one transfer whoever asks.

What the cache has and the store still has is not moved; of several who ask, one moves it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path

from launcher.core.errors import file_system
from launcher.staging import transfer
from launcher.staging.cache import Asset, Cache, Source, key_of
from launcher.staging.transfer import Order
from launcher.staging.uri import Uri


@dataclass(frozen=True)
class Staged:
    """What :func:`bring` brought."""

    uri: Uri
    asset: Asset
    single: bool
    moved: int = field(default=0)
    """Files that were transferred for this call."""

    @property
    def path(self) -> Path:
        """The file that the URI names, or the folder."""
        if self.single:
            return self.asset.files / self.asset.manifest.files[0].path
        return self.asset.files


def bring(cache: Cache, order: Order) -> Staged:
    """The asset of a URI, whole and proven; transferred unless the cache has what the store has.

    Raises RdtlError: RDTL-G002 nothing there, G003 contents differ from the store's checksums,
    G009 no space, G011 no answer, G014 refused, G021 the source keeps changing.
    """
    before = cache.source(order.uri)
    try:
        with cache.locked(key_of(order.uri), order.say) as held:
            now = cache.source(order.uri)
            if now and now != before:  # somebody fetched it while we waited
                found = _in_cache(cache, order, now)
                if found:
                    return found
            return _bring(cache, order, now, shared=held == "mine")
    except OSError as error:
        raise file_system(error, f"{order.uri} was fetched") from error


def _bring(cache: Cache, order: Order, known: Source | None, *, shared: bool) -> Staged:
    listing = transfer.patiently_listed(order)
    if known and known.listing == transfer.digest_of(listing) and not order.fresh:
        found = _in_cache(cache, order, known)
        if found:
            return found
    work = cache.work(order.uri, shared=shared)
    fetching = transfer.Transfer(order, listing, work)
    fetching.run()
    asset = cache.publish(work, fetching.prover.manifest(), replace=order.fresh)
    source = Source(
        str(order.uri),
        transfer.digest_of(fetching.listing),
        asset.manifest.digest,
        listing.single,
        uuid.uuid4().hex,
    )
    cache.remember(order.uri, source)
    used = cache.use(source.digest, order.run)
    return Staged(order.uri, used or asset, listing.single, fetching.moved)


def _in_cache(cache: Cache, order: Order, source: Source) -> Staged | None:
    found = cache.use(source.digest, order.run)
    return Staged(order.uri, found, source.single) if found else None
