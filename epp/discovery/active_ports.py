"""Which of a pool's ports a model server takes requests at.

A server with several ranks (data parallelism) has a port for each. An annotation says which of them
are in use; without it, all are.
"""

from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["ACTIVE_PORTS", "active_ports", "rank_names"]

ACTIVE_PORTS: Final = ("llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports")
"""The names of the annotation, the present one first; the first that is there counts."""


def active_ports(annotations: Mapping[str, str], ports: Sequence[int]) -> tuple[int, ...]:
    """Return those of the ports that the annotation lists, in their own order; all of them where
    there is none.

    It is a list with commas. What is in it and is none of the ports means nothing.
    """
    for name in ACTIVE_PORTS:
        if name in annotations:
            listed = (part.strip() for part in annotations[name].split(","))
            chosen = {int(part) for part in listed if part.isascii() and part.isdecimal()}
            return tuple(port for port in ports if port in chosen)
    return tuple(ports)


def rank_names(name: str, ports: Sequence[int]) -> dict[int, str]:
    """Return the name of the endpoint at each port of a server: that of the server and its rank,
    which is the place of its port; only the server's where it has no more than one."""
    if len(ports) == 1:
        return {ports[0]: name}
    return {port: f"{name}-rank-{rank}" for rank, port in enumerate(ports)}
