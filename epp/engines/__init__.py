"""The model servers' side: what their engines say of their load."""

from epp.engines.credentials import Credentials
from epp.engines.scraper import Scraper

__all__ = ["Credentials", "Scraper"]
