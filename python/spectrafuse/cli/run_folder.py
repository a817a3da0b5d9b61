"""The output folder of a command: what it was asked, its state while it runs, its results when it is done.

While a command runs, `OUTPUT/state` holds what it was asked (`command.json`) and the training state. Results are
written into `OUTPUT/state/results` and moved into place file by file when all of them exist; `run.json` comes last,
so a folder with a `run.json` and no `state` is complete.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from spectrafuse._runtime.errors import SpectrafuseError
from spectrafuse.cli.terminal import CommandError, Interrupted, say, training_progress
from spectrafuse.io.errors import DataError
from spectrafuse.io.fingerprint import differences
from spectrafuse.io.results import write_json

if TYPE_CHECKING:
    from spectrafuse._runtime.progress import Progress

STATE = "state"
RECORD = "run.json"
_COMMAND = "command.json"
_CLOCK = "clock.json"
_LOCK = "lock"
_TRAINING = "training.pt"
_STAGING = "results"


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is damaged ({error}). Choose another --output, or add --restart.") from error
    return content if isinstance(content, dict) else {}


class RunFolder:
    """One command's output folder.

    Parameters
    ----------
    path : path
        The folder; made if it is missing.
    request : mapping
        What decides the results: the command, its parameters, the hashes of its data. Plain values.
    restart : bool
        Forget an unfinished run, and replace the results of a finished one when the new ones are complete.

    Raises
    ------
    DataError
        If the folder belongs to a different command, holds other files, is in use by another process
        or cannot be written.

    Attributes
    ----------
    finished : bool
        This very request is done already; nothing was touched.
    resumed : bool
        An interrupted run of this request is going on.
    epoch : int
        Epochs this process has seen the end of; its caller counts them.
    """

    def __init__(self, path: str | os.PathLike[str], request: Mapping[str, Any], *, restart: bool = False) -> None:
        self.path = Path(path)
        self.request: dict[str, Any] = json.loads(json.dumps(request))
        self.state = self.path / STATE
        self.finished = False
        self.resumed = False
        self.epoch = 0
        self._lock: IO[str] | None = None
        self._make()
        # A run that left no training state has nothing to lose.
        unfinished = _read_json(self.state / _COMMAND) if self.has_state and not restart else None
        record = _read_json(self.path / RECORD) if not restart else None
        if unfinished is not None:
            self._compare(unfinished, "an unfinished run of a different command")
            self.resumed = True
        elif record is not None:
            self._compare(record.get("request", {}), "the results of a different command")
            self.finished = True
            return
        elif not restart:
            foreign = sorted(p.name for p in self.path.iterdir() if p.name != STATE)
            if foreign:
                raise DataError(
                    f"'{self.path}' is not empty ({', '.join(foreign[:3])}{', ..' if len(foreign) > 3 else ''}) and "
                    "holds no results of spectrafuse. Choose a new folder for --output."
                )
        self._begin(restart)

    def _make(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise DataError(f"--output '{self.path}' is a file. Give a folder.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"The output folder '{self.path}' cannot be created: {error.strerror}.") from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise DataError(f"The output folder '{self.path}' cannot be written.")

    def _compare(self, before: Mapping[str, Any], what: str) -> None:
        different = differences(before, self.request)
        if different:
            raise DataError(
                f"'{self.path}' holds {what} ({'; '.join(different[:4])}). Choose another --output, or add --restart "
                "to replace it."
            )

    def _begin(self, restart: bool) -> None:
        self.state.mkdir(exist_ok=True)
        self._take_lock()
        if restart:
            for entry in self.state.iterdir():
                if entry.name != _LOCK:
                    _remove(entry)
        if not self.resumed:
            write_json(self.state / _COMMAND, self.request)
        clock = _read_json(self.state / _CLOCK) or {}
        self._before = float(clock.get("seconds", 0.0))
        self.starts = int(clock.get("starts", 0)) + 1
        self._started = time.monotonic()
        self._saved = 0.0
        self.save_clock(at_once=True)

    def _take_lock(self) -> None:
        try:
            import fcntl
        except ImportError:
            return
        self._lock = open(self.state / _LOCK, "w", encoding="utf-8")  # noqa: SIM115  held until release
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise DataError(
                f"Another spectrafuse command is using '{self.path}' right now. Wait, or choose another --output."
            ) from error
        except OSError:
            # Some network file systems have no locks; the command then runs without one.
            self.release()

    def release(self) -> None:
        """Let another process work in this folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def seconds(self) -> float:
        """Time used by this request so far, interrupted starts included."""
        return self._before + time.monotonic() - self._started

    @property
    def has_state(self) -> bool:
        """Whether the training has left a checkpoint."""
        return (self.state / _TRAINING).is_file()

    def save_clock(self, *, at_once: bool = False) -> None:
        """Note the time used, at most every two seconds."""
        if at_once or self.seconds - self._saved > 2.0:
            self._saved = self.seconds
            write_json(self.state / _CLOCK, {"seconds": self._saved, "starts": self.starts})

    @contextmanager
    def results(self, record: dict[str, Any]) -> Iterator[Path]:
        """A folder to write results into; when the block ends they and `run.json` replace what was there.

        `record` becomes `run.json`, with the request, the versions, the times and the names of the files added.
        """
        staging = self.state / _STAGING
        _remove(staging)
        staging.mkdir()
        yield staging
        names = sorted(entry.name for entry in staging.iterdir())
        for old in self._own_files():
            _remove(self.path / old)
        for name in names:
            _remove(self.path / name)
            os.replace(staging / name, self.path / name)
        write_json(self.path / RECORD, {**self._circumstances(), **record, "files": [*names, RECORD]})
        self.release()
        _remove(self.state)

    def _own_files(self) -> list[str]:
        """Files of an earlier run in this folder, its record first: half-replaced results must not look complete."""
        try:
            record = _read_json(self.path / RECORD) or {}
        except DataError:
            record = {}
        names = [name for name in record.get("files", []) if isinstance(name, str) and Path(name).name == name]
        return [RECORD, *(name for name in names if name not in (RECORD, STATE, "..", "."))]

    def _circumstances(self) -> dict[str, Any]:
        import torch

        from spectrafuse.backends import forced
        from spectrafuse.cli.doctor import cpu_name, versions

        return {
            "request": self.request,
            "versions": {name: version for name, version in versions().items() if version is not None},
            "platform": platform.platform(),
            "cpu": cpu_name(),
            "threads": torch.get_num_threads(),
            "backend": forced(),
            "finished_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 2),
            "starts": self.starts,
        }


@contextmanager
def working_in(folder: RunFolder) -> Iterator[None]:
    """Hold the folder for this process, and turn Ctrl-C into a sentence about how to resume.

    Raises
    ------
    Interrupted
        On Ctrl-C, if there is a checkpoint.
    """
    try:
        yield
    except KeyboardInterrupt:
        folder.save_clock(at_once=True)
        if not folder.has_state:
            raise
        raise Interrupted(
            f"Stopped{f' after epoch {folder.epoch}' if folder.epoch else ''}; the checkpoint is in '{folder.state}'. "
            "Run the same command to resume."
        ) from None
    finally:
        folder.release()


def fit_in_folder(estimator: Any, data: Any, folder: RunFolder, title: str) -> None:
    """Fit with checkpoints in the folder; a run that was interrupted is resumed."""
    if folder.resumed:
        say("resuming", f"from the checkpoint in '{folder.state}' (--restart starts from the beginning).")
    with training_progress(title) as show:

        def report(progress: Progress) -> None:
            folder.epoch = progress.epoch
            show(progress)
            folder.save_clock()

        try:
            estimator.fit(data, callback=report, checkpoint_dir=folder.state)
        except SpectrafuseError as error:
            if folder.resumed and not folder.epoch:
                raise CommandError(f"{error} With --restart the command starts from the beginning.") from error
            raise


def set_threads(threads: int | None) -> None:
    """Limit the threads torch and the kernels use."""
    if threads is not None:
        import torch

        from spectrafuse._runtime import checks

        torch.set_num_threads(checks.integer("threads", threads))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
