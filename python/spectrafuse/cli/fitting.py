"""Fit an estimator for a command: with a progress bar, a clock, and a clear word when it is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spectrafuse.cli.run_folder import RunFolder
from spectrafuse.cli.terminal import CommandError, Interrupted, say, training_progress

if TYPE_CHECKING:
    from spectrafuse._runtime.progress import Progress


@contextmanager
def working_in(folder: RunFolder) -> Iterator[None]:
    """Hold the folder for this process, and turn Ctrl-C into a word about how to go on.

    Raises
    ------
    Interrupted
        On Ctrl-C, if there is a state to go on from.
    """
    try:
        yield
    except KeyboardInterrupt:
        folder.save_clock(at_once=True)
        if not folder.has_state:
            raise
        raise Interrupted(
            f"Stopped {f'after epoch {folder.epoch} ' if folder.epoch else ''}with the state in '{folder.state}'; "
            "the same command goes on from there."
        ) from None
    finally:
        folder.release()


def fit_in_folder(estimator: Any, data: Any, folder: RunFolder, title: str) -> None:
    """Fit with the training state in the folder; a state that is there already is gone on from."""
    if folder.resumed:
        say("resuming", f"going on from the state in '{folder.state}' (--restart begins anew).")
    with training_progress(title) as show:

        def report(progress: Progress) -> None:
            folder.epoch = progress.epoch
            show(progress)
            folder.save_clock()

        try:
            estimator.fit(data, callback=report, checkpoint_dir=folder.state)
        except ValueError as error:
            if folder.resumed and not folder.epoch:
                raise CommandError(f"{error} With --restart the command begins anew.") from error
            raise


def set_threads(threads: int | None) -> None:
    """Limit the threads torch and the kernels use."""
    if threads is not None:
        import torch

        from spectrafuse._runtime import checks

        torch.set_num_threads(checks.integer("threads", threads))
