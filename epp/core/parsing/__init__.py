"""Bodies: what routing needs of a request's, what a response's tells of its length, and nothing
else."""

from epp.core.parsing.body import BodyFacts, inspect_body
from epp.core.parsing.usage import UsageReader

__all__ = ["BodyFacts", "UsageReader", "inspect_body"]
