"""The output folder of a command: what it was asked, its state while it runs, its results when it is done.

While a command runs, `OUTPUT/state` holds what it was asked (`command.json`) and the training state. Results are
written into `OUTPUT/state/results`. When all of them exist, `OUTPUT/state/run.json` lists them, and from then on the
run is done: they are moved into place, `run.json` last, also by the next command if this one is killed while it does.
A folder with a `run.json` of the same run as its `state` is complete.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from spectrafuse._runtime.errors import SpectrafuseError
from spectrafuse.cli import ownership
from spectrafuse.cli.terminal import CommandError, Interrupted, say, training_progress
from spectrafuse.io.errors import DataError
from spectrafuse.io.fingerprint import differences, sha256
from spectrafuse.io.limits import in_words
from spectrafuse.io.results import write_json
from spectrafuse.reports.page import REPORT, save_report
from spectrafuse.reports.style import empty_pictures

if TYPE_CHECKING:
    from spectrafuse._runtime.progress import Progress

STATE = "state"
RECORD = "run.json"
_COMMAND = "command.json"
_CLOCK = "clock.json"
_LOCK = "lock"
_TRAINING = "training.pt"
_STAGING = "results"
_REPLACED = "replaced.json"
_TRIAL = "trial"
_MOST_RECORD_BYTES = 1 << 26
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Trial = Callable[[Path], None]
"""Writes small results of the same names into a folder."""


def _read_json(path: Path, way_out: str = "Choose another --output, or add --restart.") -> dict[str, Any] | None:
    """A record; None if there is none."""
    if not os.path.lexists(path):
        return None
    content, reason = None, "it holds no JSON object"
    if not ownership.is_plain_file(path):
        reason = "it is no regular file"
    elif path.stat().st_size > _MOST_RECORD_BYTES:
        reason = "it is too long"
    else:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            reason = str(error)
    if not isinstance(content, dict):
        raise DataError(f"'{path}' is damaged ({reason}). {way_out}")
    return content


class RunFolder:
    """One command's output folder.

    Nothing is removed or replaced but what is ours (`spectrafuse.cli.ownership`); what is in the way is found here,
    before any work.

    Parameters
    ----------
    path : path
        The folder; made if it is missing.
    request : mapping
        What decides the results: the command, its parameters, the hashes of its data. Plain values.
    restart : bool
        Forget an unfinished run, and replace the results of a finished one when the new ones are complete.
    trial : callable, optional
        Writes results as the command will, of small made-up data: what cannot be written fails now.
    space : int
        Bytes that the results and the state will take at least.
    reads : sequence of path
        What the command reads, and must not replace: files, folders.

    Raises
    ------
    DataError
        If the folder belongs to a different command, holds other files, is in use by another process
        or cannot be written; if a record in it is damaged.

    Attributes
    ----------
    finished : bool
        This very request is done already.
    resumed : bool
        An interrupted run of this request is going on.
    epoch : int
        Epochs this process has seen the end of; its caller counts them.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        request: Mapping[str, Any],
        *,
        restart: bool = False,
        trial: Trial | None = None,
        space: int = 0,
        reads: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        self.path = Path(path)
        self.request: dict[str, Any] = json.loads(json.dumps(request))
        self.state = self.path / STATE
        self.finished = False
        self.resumed = False
        self.epoch = 0
        self.space = space
        self._reads = [Path(path) for path in reads]
        self._lock: IO[bytes] | None = None
        self._make()
        with self.reaching():
            self._enter(restart, trial)

    def _enter(self, restart: bool, trial: Trial | None) -> None:
        ours = self._has_own_state(restart)
        if ours and self._is_done(restart):
            self._take_lock()
            self._put_in_place()
            ours = False
        damaged = None
        try:
            record = _read_json(self.path / RECORD)
        except DataError as error:
            record, damaged = None, error
        if not restart:
            unfinished = _read_json(self.state / _COMMAND) if ours and self.has_state else None
            if unfinished is not None and not (record and _run_of(unfinished) == _run_of(record)):
                self._compare(unfinished, "an unfinished run of a different command")
                self.resumed = True
            elif damaged is not None:
                raise damaged
            elif record is not None:
                self._compare(record.get("request"), "the results of a different command")
                self.finished = True
                self._tidy(ours)
                return
            else:
                self._refuse_others()
        self._begin(restart, trial, record)

    def _has_own_state(self, restart: bool) -> bool:
        """Whether there is a folder of state; a foreign one is refused, but where results are all that is wanted."""
        try:
            ownership.check_state(self.state)
        except DataError:
            if restart or not os.path.lexists(self.path / RECORD):
                raise
            return False
        return self.state.is_dir()

    def _refuse_others(self) -> None:
        others = sorted(p.name for p in self.path.iterdir() if p.name != STATE)
        if others:
            raise DataError(
                f"'{self.path}' is not empty ({', '.join(others[:3])}{', ..' if len(others) > 3 else ''}) and "
                "holds no results of spectrafuse. Choose a new folder for --output."
            )

    def _tidy(self, ours: bool) -> None:
        """Remove what a process that was killed in its last moments left of its state."""
        if ours:
            with suppress(DataError):
                self._take_lock()
                ownership.remove_state(self.state)
            self.release()

    def trouble(self, error: BaseException) -> str | None:
        """The sentence for an error of a file system that the folder lies on; None for any other error."""
        if not isinstance(error, OSError) or error.errno is None:
            return None
        place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        inside = place is None or self.path.resolve() in (place.resolve(), *place.resolve().parents)
        if error.errno in _FULL:
            where = self.path if inside or place is None else place.parent
            needed = f", at least {in_words(self.space)} are needed" if self.space else ""
            return f"There is no space left in '{where}'{needed}; run the same command after making room.{self._kept()}"
        if not inside:
            return None
        if error.errno in (errno.ENOENT, errno.ENOTDIR) and not self.state.is_dir():
            return self._gone()
        reason = error.strerror or type(error).__name__
        return f"'{place or self.path}' cannot be used ({reason}); run the same command when it can.{self._kept()}"

    def _gone(self) -> str:
        return f"The folder '{self.state}' was removed while the command ran; the same command starts anew."

    def _kept(self) -> str:
        return f" What was trained is kept in '{self.state}'." if self.has_state else ""

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Turn errors of the file system that the folder lies on into a sentence."""
        try:
            yield
        except OSError as error:
            sentence = self.trouble(error)
            if sentence is None:
                raise
            raise CommandError(sentence) from error

    def _make(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise DataError(f"--output '{self.path}' is a file. Give a folder.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"The output folder '{self.path}' cannot be created: {error.strerror}.") from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise DataError(f"The output folder '{self.path}' cannot be written.")

    def _compare(self, before: Any, what: str) -> None:
        if not isinstance(before, Mapping):
            raise DataError(f"'{self.path}' holds a damaged record. Choose another --output, or add --restart.")
        different = differences({name: value for name, value in before.items() if name != "run"}, self.request)
        if different:
            # Parameters of another command have nothing in common.
            told = [one for one in different if one.startswith("command ")] or different[:4]
            raise DataError(
                f"'{self.path}' holds {what} ({'; '.join(told)}). Choose another --output, or add --restart "
                "to replace it."
            )

    def _begin(self, restart: bool, trial: Trial | None, record: dict[str, Any] | None) -> None:
        had_state = self.state.is_dir()
        self._take_lock()
        try:
            clock = _read_clock(self.state / _CLOCK) if self.resumed else {}
            self._check_space()
            self._earlier = self._try(trial, record)
        except BaseException:
            if not had_state:
                ownership.remove_state(self.state)
            self.release()
            raise
        if not self.resumed:
            ownership.empty_state(self.state, _LOCK)
            write_json(self.state / _COMMAND, {"run": secrets.token_hex(8), **self.request})
        self._before = float(clock.get("seconds", 0.0))
        self.starts = int(clock.get("starts", 0)) + 1
        self._started = time.monotonic()
        self._saved = 0.0
        self.save_clock(at_once=True)

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.path).free
        if free < self.space:
            raise DataError(
                f"There is no space left in '{self.path}': at least {in_words(self.space)} are needed, and "
                f"{in_words(free)} are free. Run the same command after making room."
            )

    def _try(self, trial: Trial | None, record: dict[str, Any] | None) -> dict[str, str]:
        """Write small results, and see that nothing is in the way of those that will have the same names.

        Returns
        -------
        dict of str to str
            The files of earlier results, which will be replaced, and their SHA-256.
        """
        place = self.state / _TRIAL
        if place.is_dir():
            shutil.rmtree(place)
        place.mkdir()
        try:
            if trial is not None:
                with empty_pictures():
                    trial(place)
            paths = [*ownership.files_in(place), REPORT, RECORD]
        finally:
            shutil.rmtree(place, ignore_errors=True)
        known = {} if record is None else _digests_of(record)
        if known is None or (record is None and os.path.lexists(self.path / RECORD)):
            known = ownership.recognized(self.path, paths)
        elif record is not None:
            known = {**known, RECORD: sha256(self.path / RECORD)}
        for name in sorted({path.split("/")[0] for path in (*paths, *known)}):
            found = ownership.foreign(self.path, name, known) if _is_name(name) else None
            if found is not None:
                raise ownership.in_the_way(found)
            for path in self._reads:
                if (self.path / name).resolve() in (path.resolve(), *path.resolve().parents):
                    raise DataError(
                        f"'{path}' is read by this command, which would replace it. Choose another --output."
                    )
        return known

    def _take_lock(self) -> None:
        ownership.mark(self.state)
        try:
            import fcntl
        except ImportError:
            return
        while self._lock is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            held = os.fdopen(os.open(self.state / _LOCK, flags, 0o666), "rb+", buffering=0)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                held.close()
                raise DataError(
                    f"Another spectrafuse command is using '{self.path}' right now. Wait, or choose another --output."
                ) from error
            except OSError:
                # Some network file systems have no locks; the command then runs without one.
                held.close()
                return
            self._lock = held
            # The process that held it may have removed it when it ended.
            if not os.fstat(held.fileno()).st_nlink:
                self.release()
                ownership.mark(self.state)

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
        """Note the time used, at most every two seconds.

        Raises
        ------
        CommandError
            If the folder has gone.
        """
        if at_once or self.seconds - self._saved > 2.0:
            if not self.state.is_dir():
                raise CommandError(self._gone())
            self._saved = self.seconds
            times = [self._saved, self.starts]
            write_json(self.state / _CLOCK, {"seconds": times[0], "starts": times[1], "check": _check_sum(times)})

    def write_report(self, results: Path, record: Mapping[str, Any], **page: Any) -> None:
        """Write `report.html` beside results that are complete but for it; `page` as in `save_report`."""
        save_report(results / REPORT, record={**self._circumstances(), **record}, **page)

    @contextmanager
    def results(self, record: dict[str, Any]) -> Iterator[Path]:
        """A folder to write results into; when the block ends they and `run.json` replace what was there.

        `record` becomes `run.json`, with the request, the versions, the times and the names of the files added.
        """
        staging = self.state / _STAGING
        if staging.is_dir():
            shutil.rmtree(staging)
        staging.mkdir()
        yield staging
        names = sorted(entry.name for entry in staging.iterdir())
        hashes = {path: sha256(staging / path) for path in ownership.files_in(staging)}
        run = _run_of(_read_json(self.state / _COMMAND) or {})
        listed = {"run": run, "files": [*names, RECORD], "sha256": hashes}
        write_json(self.state / _REPLACED, self._earlier)
        write_json(self.state / RECORD, {**self._circumstances(), **record, **listed})
        self._put_in_place()

    def _is_done(self, restart: bool) -> bool:
        """Whether the state is of a run that is done but for moving its results into place."""
        try:
            record = _read_json(self.state / RECORD)
            if record is None:
                return False
            if _digests_of(record) is None:
                raise DataError(f"'{self.state / RECORD}' is damaged. Choose another --output, or add --restart.")
        except DataError:
            if restart:
                return False
            raise
        return True

    def _put_in_place(self) -> None:
        """Move results that are complete into place; can be begun again wherever it was cut off."""
        record, replaced = _read_json(self.state / RECORD) or {}, _read_json(self.state / _REPLACED) or {}
        staging = self.state / _STAGING
        new = {name for name in record["files"] if _is_name(name)} - {RECORD}
        if os.path.lexists(self.path / RECORD):
            # Half-replaced results must not look complete.
            ownership.remove(self.path, RECORD, replaced)
        for name in sorted({path.split("/")[0] for path in replaced} - new):
            if _is_name(name):
                ownership.remove(self.path, name, replaced)
        for name in sorted(new):
            if os.path.lexists(staging / name):
                ownership.remove(self.path, name, replaced)
                os.replace(staging / name, self.path / name)
        os.replace(self.state / RECORD, self.path / RECORD)
        ownership.remove_state(self.state)
        self.release()

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


def _is_name(name: Any) -> bool:
    """Whether a name of a record is that of a file or folder right in the output folder."""
    return isinstance(name, str) and name not in ("", ".", "..", STATE) and "/" not in name and "\0" not in name


def _run_of(record: Mapping[str, Any]) -> str | None:
    """What tells a run from others of the same request."""
    run = record.get("run")
    return run if isinstance(run, str) else None


def _digests_of(record: Mapping[str, Any]) -> dict[str, str] | None:
    """SHA-256 of the results that a record lists; None if it is damaged, or no record of ours."""
    found, names = record.get("sha256"), record.get("files")
    if not isinstance(record.get("request"), dict) or not isinstance(found, dict) or not isinstance(names, list):
        return None
    return {path: value for path, value in found.items() if isinstance(value, str)}


def _check_sum(times: list[float]) -> int:
    return zlib.crc32(json.dumps(times).encode())


def _read_clock(path: Path) -> dict[str, Any]:
    way_out = "Delete it to go on without the times so far, or add --restart to start from the beginning."
    clock = _read_json(path, way_out) or {}
    seconds, starts = clock.get("seconds", 0.0), clock.get("starts", 0)
    whole = type(seconds) in (int, float) and type(starts) is int and 0 <= seconds < 1e12 and starts >= 0
    if not whole or (clock and clock.get("check") != _check_sum([seconds, starts])):
        raise DataError(f"'{path}' is damaged (it holds no times). {way_out}")
    return clock


@contextmanager
def working_in(folder: RunFolder) -> Iterator[None]:
    """Hold the folder for this process, and turn Ctrl-C into a sentence about how to resume.

    Raises
    ------
    Interrupted
        On Ctrl-C, if there is a checkpoint.
    CommandError
        If the folder can no longer be written: a full disk, a folder that has gone.
    """
    try:
        with folder.reaching():
            yield
    except KeyboardInterrupt:
        with suppress(OSError, SpectrafuseError):
            folder.save_clock(at_once=True)
        if not folder.has_state:
            raise
        raise Interrupted(
            f"Stopped{f' after epoch {folder.epoch}' if folder.epoch else ''}; the checkpoint is in '{folder.state}'. "
            "Run the same command to resume."
        ) from None
    finally:
        folder.release()


def fit_in_folder(estimator: Any, data: Any, folder: RunFolder, title: str, **known: Any) -> None:
    """Fit with checkpoints in the folder; a run that was interrupted is resumed. `known` goes to `fit`."""
    if folder.resumed:
        say("resuming", f"from the checkpoint in '{folder.state}' (--restart starts from the beginning).")
    with training_progress(title) as show:

        def report(progress: Progress) -> None:
            folder.epoch = progress.epoch
            show(progress)
            folder.save_clock()

        try:
            estimator.fit(data, callback=report, checkpoint_dir=folder.state, **known)
        except OSError:
            raise
        except SpectrafuseError as error:
            if folder.resumed:
                raise CommandError(f"{error} With --restart the command starts from the beginning.") from error
            raise
        except Exception as error:
            if not folder.resumed or folder.epoch:
                raise
            # What does not fit together in a state that can be read shows itself in any way.
            raise CommandError(
                f"The state in '{folder.state}' cannot be resumed, it may be damaged ({type(error).__name__}: "
                f"{error}). With --restart the command starts from the beginning."
            ) from error


def set_threads(threads: int | None) -> None:
    """Limit the threads torch and the kernels use."""
    if threads is not None:
        import torch

        from spectrafuse._runtime import checks

        torch.set_num_threads(checks.integer("threads", threads))
