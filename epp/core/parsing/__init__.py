"""Request bodies: what routing needs of them, and nothing else."""

from epp.core.parsing.body import BodyFacts, inspect_body

__all__ = ["BodyFacts", "inspect_body"]
