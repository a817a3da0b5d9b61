"""What a long command shows a person: progress, warnings, and errors in one sentence."""

from __future__ import annotations

import functools
import os
import shlex
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec

from spectrafuse._runtime import text as words
from spectrafuse._runtime.errors import SpectrafuseError

if TYPE_CHECKING:
    from rich.console import Console

    from spectrafuse._runtime.progress import Callback, Progress
    from spectrafuse.reports.page import Block

Parameters = ParamSpec("Parameters")

BUG = 1
USER_ERROR = 2
INTERRUPTED = 130
# Lines appear at least every ten seconds, so the wait is a little shorter.
_PLAIN_LINE_SECONDS = 9.0
_MOST_TABLE_ROWS = 64


class CommandError(SpectrafuseError):
    """An error of the person at the keyboard; the message is one sentence."""


class Interrupted(Exception):
    """A fit was interrupted; the message says where the state is and how to go on."""


def output_console(*, markup: bool = False) -> Console:
    """The console for results (standard output); with `markup`, what is printed must hold no text of the user's."""
    return _console(markup=markup)


def message_console() -> Console:
    """The console for progress, warnings and errors (standard error)."""
    return _console(stderr=True, markup=False)


def _console(**settings: Any) -> Console:
    """A console that shows hidden characters as escapes, and text as it is unless it is asked for markup."""
    from rich.console import Console
    from rich.text import Text

    class PlainConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(words.printable(text, keep="\n"), **options)

    _say_what_cannot_be_encoded()
    return PlainConsole(highlight=False, emoji=False, **settings)


def _say_what_cannot_be_encoded() -> None:
    """Let a terminal that lacks a character show its number, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def print_blocks(console: Console, blocks: Iterable[Block]) -> None:
    """Print sentences, cautions and tables; of a long table its beginning."""
    from rich.table import Table

    from spectrafuse.reports.page import Caution, Grid

    for block in blocks:
        if isinstance(block, Grid):
            table = Table(title=f"\n{block.title}", title_justify="left", title_style="bold")
            for column in block.columns:
                table.add_column(column, justify="left" if column in block.left else "right")
            for row in block.rows[:_MOST_TABLE_ROWS]:
                table.add_row(*row)
            console.print(table)
        else:
            console.print(f"Caution: {block.text}" if isinstance(block, Caution) else block)


def say(kind: str, text: str) -> None:
    """Write `kind: text` to standard error as one line, never wrapped, of at most 500 characters."""
    print(f"{kind}: {words.message(text)}", file=sys.stderr)


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _sentence(error: BaseException) -> str | None:
    """The sentence for an error that its user can do something about; None for a bug."""
    if isinstance(error, SpectrafuseError):
        return str(error)
    if isinstance(error, (MemoryError, RuntimeError)) and _is_out_of_memory(error):
        return "Out of memory. A smaller --batch-size, --crop-size or --pool-size needs less."
    if isinstance(error, OSError):
        name = f"'{error.filename}': " if error.filename else ""
        return f"{name}{str(error.strerror or error).removesuffix('.')}."
    return None


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    say("warning", str(message))


def _show_bug() -> None:
    """The traceback of what is being handled, and how to report it."""
    from spectrafuse import __version__

    print(words.printable(traceback.format_exc(), keep="\n"), end="", file=sys.stderr)
    print(
        "bug: this is a mistake in spectrafuse, not in your data. To report it, send the lines above and below, and "
        "what `spectrafuse doctor` prints.",
        f"version: spectrafuse {__version__}",
        words.printable(f"command: {shlex.join(['spectrafuse', *sys.argv[1:]])}"),
        sep="\n",
        file=sys.stderr,
    )


def friendly(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Make a command end with an exit code, and with one sentence where its user can do something about an error.

    Exit codes: 2 for errors of the user, 1 for a bug (with its traceback and how to report it), 130 for Ctrl-C. With
    SPECTRAFUSE_DEBUG=1 every exception comes through as it is.
    """

    @functools.wraps(command)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        import typer

        _say_what_cannot_be_encoded()
        try:
            from spectrafuse.io.errors import asked_by_command

            with warnings.catch_warnings(), asked_by_command(command.__name__):
                warnings.simplefilter("always", UserWarning)
                # Of names in pictures.
                warnings.filterwarnings("ignore", message="Glyph .* missing from")
                warnings.showwarning = _show_warning
                command(*args, **kwargs)
        except Interrupted as error:
            say("interrupted", str(error))
            raise typer.Exit(INTERRUPTED) from None
        except KeyboardInterrupt:
            say("interrupted", "Nothing has been saved yet; the same command starts from the beginning.")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if isinstance(error, typer.Exit) or os.environ.get("SPECTRAFUSE_DEBUG", "") not in ("", "0"):
                raise
            sentence = _sentence(error)
            if sentence is None:
                _show_bug()
                raise typer.Exit(BUG) from None
            say("error", sentence)
            raise typer.Exit(USER_ERROR) from None

    return wrapper


def catch_interrupts() -> None:
    """Make the first Ctrl-C, or request to end, interrupt the command; the second is passed over while it ends.

    The third ends the process at once; what was saved so far stays.
    """
    seen: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        seen.append(number)
        if len(seen) == 1:
            raise KeyboardInterrupt
        if len(seen) > 2:
            os._exit(INTERRUPTED)

    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        # A shell lets its background jobs ignore interrupts.
        if signal.getsignal(number) is usual:
            signal.signal(number, interrupt)


class _PlainLines:
    """Progress where there is no terminal: a line at once, at the end, and every ten seconds."""

    def __init__(self, title: str, *, first: bool = True) -> None:
        self._title, self._says_first = title, first
        self._start = time.monotonic()
        self._said = self._start
        self._first: int | None = None
        self._last: Progress | None = None
        # When the share of the work that is done was first told, that share, and the one that was told last.
        self._shares: tuple[float, float, float] | None = None
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> _PlainLines:
        if self._says_first:
            self._say("started")
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._clock.join()

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            if self._first is None:
                # A resumed fit starts in the middle: the speed counts from here, not from epoch 0.
                self._first = progress.epoch - 1
            self._last = progress
            last = progress.epoch == progress.total_epochs and progress.epoch > 0
            if last or time.monotonic() - self._said >= _PLAIN_LINE_SECONDS:
                self._report()

    def share(self, done: float) -> None:
        """Take note of the share of the work that is done."""
        now, shares = time.monotonic(), self._shares
        # Another piece of work begins at 0 again.
        self._shares = (now, done, done) if shares is None or done < shares[2] else (*shares[:2], done)

    def _tick(self) -> None:
        while not self._done.wait(0.5):
            with self._lock:
                if time.monotonic() - self._said >= _PLAIN_LINE_SECONDS:
                    self._report()

    def _report(self) -> None:
        seconds = time.monotonic() - self._start
        left, words = self._left(seconds), ""
        if self._last is not None:
            words = (f"epoch {_of(self._last)}: " if self._last.epoch else "") + _numbers(self._last)
        known = (
            "" if " left" in words else ", time left not known yet" if left is None else f", about {left:.0f} s left"
        )
        text = f"{seconds:.0f} s so far{known}"
        self._say(f"{words} ({text})" if words else text)

    def _left(self, seconds: float) -> float | None:
        """Seconds left at the speed so far; None where only a rule ends the fit."""
        progress, first = self._last, self._first
        if self._shares is not None:
            began, before, done = self._shares
            return (time.monotonic() - began) * (1 - done) / (done - before) if done > before else None
        if progress is None or first is None or progress.total_epochs is None or progress.epoch <= first:
            return None
        return seconds * (progress.total_epochs - progress.epoch) / (progress.epoch - first)

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        print(f"{self._title}: {text}", file=sys.stderr, flush=True)


@contextmanager
def waiting(title: str) -> Iterator[None]:
    """Say every ten seconds that work without epochs goes on, such as reading a large file, and how long it will."""
    from spectrafuse._runtime.progress import listening

    console = message_console()
    if console.is_terminal:
        status = console.status(f"{title} ...")
        with status, listening(lambda done: status.update(f"{title} ... {done:.0%}")):
            yield
        return
    with _PlainLines(title, first=False) as lines, listening(lines.share):
        yield


def _of(progress: Progress) -> str:
    return f"{progress.epoch}" if progress.total_epochs is None else f"{progress.epoch}/{progress.total_epochs}"


def _numbers(progress: Progress) -> str:
    return progress.message or ", ".join(f"{key} {value:.4g}" for key, value in progress.values.items())


@contextmanager
def training_progress(title: str) -> Iterator[Callback]:
    """A callback for `fit` that draws a bar with epoch, losses and the time left."""
    console = message_console()
    if not console.is_terminal:
        with _PlainLines(title) as lines:
            yield lines
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("epoch {task.fields[of]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}", table_column=Column(ratio=1, no_wrap=True)),
    )
    with Bar(*columns, console=console, expand=True) as bar:
        task = bar.add_task(title, total=None, of="0", numbers="")
        first: list[int] = []

        def report(progress: Progress) -> None:
            if not first:
                # A resumed fit starts in the middle: the speed counts from here, not from epoch 0.
                first.append(progress.epoch - 1)
                total = None if progress.total_epochs is None else progress.total_epochs - first[0]
                bar.update(task, total=total)
            bar.update(task, completed=progress.epoch - first[0], of=_of(progress), numbers=_numbers(progress))

        yield report
