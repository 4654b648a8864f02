"""How far the simulations are: a bar on a terminal, a line for each run elsewhere."""

import time
from typing import Final, TextIO

__all__ = ["Progress"]

_WIDTH: Final = 30
_REDRAW_AFTER_S: Final = 0.1


class Progress:
    """Tells of ``runs`` runs, on a stream."""

    def __init__(self, stream: TextIO, runs: int) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._runs = runs
        self._done = 0
        self._title = ""
        self._began_s = self._drawn_s = time.monotonic()

    def begin(self, title: str) -> None:
        """Tell what the next run is."""
        self._title = title
        self._began_s = time.monotonic()
        self._draw(0.0)

    def at(self, ratio: float) -> None:
        """Tell how much of the run is over, 0 to 1."""
        if time.monotonic() - self._drawn_s >= _REDRAW_AFTER_S:
            self._draw(ratio)

    def end(self, requests: int) -> None:
        """Tell that the run is over."""
        self._done += 1
        if self._is_terminal:
            self._draw(0.0)
        else:
            took_s = time.monotonic() - self._began_s
            self._write(
                f"{self._done} of {self._runs}: {self._title}:"
                f" {requests:,} requests in {took_s:.1f} s\n"
            )

    def close(self) -> None:
        """Remove the bar."""
        if self._is_terminal:
            self._write("\r\x1b[K")

    def _draw(self, ratio: float) -> None:
        self._drawn_s = time.monotonic()
        if self._is_terminal:
            over = (self._done + ratio) / self._runs
            bar = "#" * round(over * _WIDTH)
            self._write(f"\r\x1b[K[{bar:.<{_WIDTH}}] {over:4.0%}  {self._title}")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
