"""What is seen while chapters run."""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text


class Watch:
    """On a terminal one line tells which chapters run, for how long, and how many are left; elsewhere there is no such line.

    ``begun`` and ``ended`` are for ``run_chapters``.
    """

    def __init__(self, console: Console, total: int):
        self.total, self.done = total, 0
        self._since: dict[str, float] = {}
        self._live = Live(self, console=console, transient=True, refresh_per_second=2, redirect_stdout=False,
                          redirect_stderr=False) if console.is_terminal else None

    def __enter__(self) -> "Watch":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_) -> None:
        if self._live:
            self._live.stop()

    def begun(self, chapter: str) -> None:
        self._since[chapter] = time.monotonic()

    @contextlib.contextmanager
    def ended(self, chapter: str) -> Iterator[None]:
        """Count it. What is printed in this block, by any console, stands above the line."""
        self.done += 1
        self._since.pop(chapter, None)
        self.__exit__()
        yield
        self.__enter__()

    def __rich__(self) -> Text:
        now, left = time.monotonic(), self.total - self.done - len(self._since)
        running = ", ".join(f"{chapter} {now - since:.0f} s" for chapter, since in self._since.copy().items())
        return Text(f"[{self.done}/{self.total}] {running}" + (f"; {left} to come" if left else ""), no_wrap=True,
                    overflow="ellipsis")
