"""The model servers' side: what their engines say of their load."""

from epp.engines.scraper import Scraper

__all__ = ["Scraper"]
