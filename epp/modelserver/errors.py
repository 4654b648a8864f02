"""The errors that the server answers with, in OpenAI's shape."""

import msgspec

__all__ = ["ApiError"]


class ApiError(Exception):
    """A request that gets an error object instead of an answer.

    ``param`` names the field at fault, ``code`` is a machine-readable reason; both may be unknown.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self._param = param
        self._code = code

    def body(self) -> bytes:
        """Return the JSON body of the answer."""
        return msgspec.json.encode(
            {
                "error": {
                    "message": str(self),
                    "type": "invalid_request_error" if self.status < 500 else "server_error",
                    "param": self._param,
                    "code": self._code,
                }
            }
        )
