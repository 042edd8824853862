"""What a run says while it works: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Protocol, TextIO

from minialex.train.metrics import RunningMean

# Seconds between two plain lines within an epoch: a log of an hour stays a page or two long.
PLAIN_INTERVAL = 15.0


# A path or an option that is cut in two can no longer be copied.
_WHOLE_WORDS: Any = {"break_long_words": False, "break_on_hyphens": False}


class Bar(Protocol):
    """Progress through one pass over a part of the data."""

    def update(self, batches: int, mean: RunningMean) -> None:
        """`batches` more are done; `mean` holds the pass's figures so far."""


class Reporter:
    """Plain lines on standard output; what a terminal gets is in `TerminalReporter`."""

    def say(self, text: str = "") -> None:
        """A line for the user."""
        print(text, flush=True)

    def warn(self, text: str) -> None:
        """Something that the user should know, though the run goes on."""
        print(for_stream(f"warning: {text}", sys.stderr), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Something that explains a delay, and belongs into no result: it goes to standard error."""
        print(for_stream(text, sys.stderr), file=sys.stderr, flush=True)

    @contextmanager
    def bar(self, title: str, done: int, total: int) -> Iterator[Bar]:
        """A bar over `total` batches, of which `done` are done."""
        yield PlainBar(self, title, done, total)


class SilentReporter(Reporter):
    """Says nothing, except warnings: for output that another program reads."""

    def say(self, text: str = "") -> None:
        """Nothing."""


class Meter:
    """How fast a pass goes. The first batch only starts the clock: it also waits for the loader to fill."""

    def __init__(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        self._start: tuple[float, int, int] | None = None

    def update(self, batches: int, mean: RunningMean) -> str:
        """Count, and say 'loss 1.234  accuracy 0.567  53.1 images/s  0:42 left'."""
        now = perf_counter()
        self.done += batches
        if self._start is None:
            self._start = now, self.done, mean.seen
        seconds, batches_done = now - self._start[0], self.done - self._start[1]
        text = f"loss {mean.loss:.3f}  accuracy {mean.accuracy:.3f}"
        if batches_done == 0 or seconds <= 0:
            return text
        left = round((self.total - self.done) * seconds / batches_done)
        speed = (mean.seen - self._start[2]) / seconds
        return f"{text}  {speed:.1f} images/s  {left // 60}:{left % 60:02d} left"


class PlainBar:
    """A line now and then."""

    def __init__(self, reporter: Reporter, title: str, done: int, total: int) -> None:
        self._reporter, self._title = reporter, title
        self._meter = Meter(done, total)
        self._last = perf_counter()

    def update(self, batches: int, mean: RunningMean) -> None:
        """Count, and print a line if the last one is long ago."""
        text = self._meter.update(batches, mean)
        now = perf_counter()
        if now - self._last >= PLAIN_INTERVAL and self._meter.done < self._meter.total:
            self._last = now
            self._reporter.say(f"{self._title}  {self._meter.done}/{self._meter.total}  {text}")


class TerminalReporter(Reporter):
    """A moving bar by rich; lines that are said meanwhile appear above it."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False, soft_wrap=True)

    def say(self, text: str = "") -> None:
        """A line above the bar."""
        self._console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """A line above the bar, in yellow."""
        text = wrapped(f"warning: {text}", self._console.width)
        self._console.print(text, markup=False, style="yellow")

    def note(self, text: str) -> None:
        """A line above the bar, dim."""
        self._console.print(text, markup=False, style="dim")

    @contextmanager
    def bar(self, title: str, done: int, total: int) -> Iterator[Bar]:
        """A moving bar, gone when the pass ends."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        title_column = TextColumn("{task.description}", markup=False)
        columns = (title_column, BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"))
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(title, total=total, completed=done, figures="")
            yield RichBar(progress, task, done, total)


class RichBar:
    """One task of rich's Progress with our figures behind it."""

    def __init__(self, progress: Any, task: Any, done: int, total: int) -> None:
        self._progress, self._task = progress, task
        self._meter = Meter(done, total)

    def update(self, batches: int, mean: RunningMean) -> None:
        """Move the bar."""
        text = self._meter.update(batches, mean)
        self._progress.update(self._task, advance=batches, figures=text)


def for_stream(text: str, stream: TextIO) -> str:
    """The text, wrapped at a terminal's width; as it is for a file or a pipe, where lines are searched."""
    return wrapped(text, shutil.get_terminal_size().columns) if stream.isatty() else text


def wrapped(text: str, width: int) -> str:
    """Long lines broken between words. Indented ones are lists and commands, and stay whole."""
    lines = [
        [line] if line.startswith(" ") else textwrap.wrap(line, width, **_WHOLE_WORDS) or [""]
        for line in text.split("\n")
    ]
    return "\n".join(line for group in lines for line in group)


def default_reporter() -> Reporter:
    """A bar if standard output is a terminal, else plain lines."""
    return TerminalReporter() if sys.stdout.isatty() else Reporter()


def table(rows: Sequence[tuple[str, ...]], right: tuple[int, ...] = ()) -> str:
    """Rows of texts in aligned columns, the first row underlined; columns in `right` end flush."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
