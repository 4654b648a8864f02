"""How what is wrong with the manifests is told: all of it at once, one line per problem."""

from epp.errors import UsageError

__all__ = ["ManifestError", "Problems"]

_MAX_PROBLEMS = 100
_SHOWN_IN_ONE_LINE = 5


class ManifestError(UsageError):
    """The manifests cannot be used.

    ``problems`` has one line per problem: file, line, document, object, field, what was found and
    what was expected. As text the error is one line with the first few of them.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        shown = "; ".join(self.problems[:_SHOWN_IN_ONE_LINE])
        more = len(self.problems) - _SHOWN_IN_ONE_LINE
        return f"{shown}; and {more} more" if more > 0 else shown


class Problems:
    """Collects problems, up to 100: nobody reads more, and work and memory stay bounded."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Note one problem; raises :class:`ManifestError` when there are too many to go on."""
        self._lines.append(line)
        if len(self._lines) >= _MAX_PROBLEMS:
            self._lines.append("gave up looking for more problems")
            self.raise_any()

    def raise_any(self) -> None:
        """Raise :class:`ManifestError` with what was collected, if anything was."""
        if self._lines:
            raise ManifestError(tuple(self._lines))
