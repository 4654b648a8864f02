"""What the scraping of the engines can be told."""

from typing import Literal

import msgspec

__all__ = ["ScrapeOptions", "ScrapeScheme"]

ScrapeScheme = Literal["http", "https"]


class ScrapeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How often the metrics pages of the engines are fetched, and what a fetch may take.

    Each endpoint's page, ``scheme://ip:port`` and ``path``, is fetched about every ``interval_s``
    seconds, or every ``idle_interval_s`` while the engine has nothing to do. With ``https`` its
    certificate is not verified: an endpoint is known by its address, which certificates rarely
    name. A fetch may last for ``deadline_s`` and bring ``max_page_bytes``; after one that failed
    the next is put off, longer each time, up to ``max_backoff_s``. No more than ``concurrency``
    run at a time.
    """

    interval_s: float = 1.0
    idle_interval_s: float = 5.0
    deadline_s: float = 1.0
    max_backoff_s: float = 30.0
    max_page_bytes: int = 4 << 20
    concurrency: int = 32
    path: str = "/metrics"
    scheme: ScrapeScheme = "http"
