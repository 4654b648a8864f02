"""Bodies: what routing needs of a request's, what a response's tells of its length, and nothing
else."""

from epp.core.parsing.body import BodyFacts, inspect_body
from epp.core.parsing.model_name import ModelNameRestorer
from epp.core.parsing.model_span import model_span
from epp.core.parsing.paths import is_generating
from epp.core.parsing.usage import TokenUsage, UsageReader

__all__ = [
    "BodyFacts",
    "ModelNameRestorer",
    "TokenUsage",
    "UsageReader",
    "inspect_body",
    "is_generating",
    "model_span",
]
