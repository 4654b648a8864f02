"""Whose requests are for a pool where one EPP serves several: annotations of the pool say so."""

from collections.abc import Mapping
from typing import Final

import msgspec

from epp.discovery.checking import describe
from epp.discovery.hosts import canonical_host

__all__ = ["AUTHORITIES", "MODELS", "Audience", "read_audience"]

AUTHORITIES: Final = "inference-epp/authorities"
"""The annotation with the host names that requests for the pool are addressed to."""

MODELS: Final = "inference-epp/models"
"""The annotation with the models that requests for the pool name."""

_MAX_ITEMS = 256
_MAX_MODEL_LENGTH = 256


class Audience(msgspec.Struct, frozen=True, kw_only=True):
    """The hosts and models whose requests are for a pool, and what is wrong with the annotations:
    of each problem the path of the field and what was found and expected."""

    authorities: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()


def read_audience(annotations: Mapping[str, str]) -> Audience:
    """Return what a pool's annotations say: lists with commas, each item counted once.

    Host names become lower case, IP addresses canonical, as requests are compared with them.
    """
    problems: list[tuple[str, str]] = []
    authorities = []
    for item in _items(annotations, AUTHORITIES, problems):
        host = canonical_host(item)
        if host is None:
            expected = "expected host names or IP addresses, without port, with commas"
            problems.append((_path(AUTHORITIES), f"found {describe(item)}; {expected}"))
        else:
            authorities.append(host.removesuffix("."))
    models = _items(annotations, MODELS, problems)
    for item in models:
        if len(item) > _MAX_MODEL_LENGTH:
            expected = f"expected names of models, up to {_MAX_MODEL_LENGTH} characters each"
            problems.append((_path(MODELS), f"found {describe(item)}; {expected}"))
    return Audience(
        authorities=tuple(dict.fromkeys(authorities)),
        models=tuple(models),
        problems=tuple(problems),
    )


def _items(annotations: Mapping[str, str], name: str, problems: list[tuple[str, str]]) -> list[str]:
    listed = (item.strip() for item in annotations.get(name, "").split(","))
    items = list(dict.fromkeys(item for item in listed if item))
    if len(items) > _MAX_ITEMS:
        problems.append((_path(name), f"found {len(items)} items; expected up to {_MAX_ITEMS}"))
        return []
    return items


def _path(name: str) -> str:
    return f'metadata.annotations["{name}"]'
