"""A process that reads ahead, under its published name."""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import random
import signal
import time
import traceback
from contextlib import suppress
from typing import Any, NamedTuple

import torch
import torch.multiprocessing as mp
from torch import Tensor
from torch.utils.data import Dataset

from spectrafuse._runtime import checks
from spectrafuse.compat.hsi_global_clustering._batches import pad_and_stack

__all__ = ["DataServer"]

_PATIENCE = 0.2


class _Failure(NamedTuple):
    """What went wrong in the process."""

    report: str


class DataServer:
    """Reads a dataset over and over in a process of its own.

    Parameters
    ----------
    dataset : Dataset
        Yields cubes (C, H, W) or pairs of a cube and a label map (H, W). It goes to the process by pickling; where
        that fails, the process is forked.
    queue_size : int
        Items that are kept ready.
    shuffle : bool
        Read in a random order from the second round on; the first is in the dataset's order.
    """

    def __init__(self, dataset: Dataset, queue_size: int = 2, shuffle: bool = True) -> None:
        size = checks.integer("the length of `dataset`", len(dataset))  # type: ignore[arg-type]
        self.queue_size = min(checks.integer("queue_size", queue_size), size)
        self.dataset = dataset
        self.shuffle = shuffle
        self._capacity = queue_size
        self._proc: Any = None
        self._ready_queue: Any = None
        self._taken: list[Any] = []

    def start(self) -> None:
        """Start the process and wait until it has read the first items; a running one is left alone.

        Raises
        ------
        RuntimeError
            If the process ends before that.
        """
        if self._proc is not None:
            return
        try:
            ready = self._launch("spawn")
        except (AttributeError, TypeError, pickle.PicklingError):
            if "fork" not in multiprocessing.get_all_start_methods():
                raise
            ready = self._launch("fork")
        while not ready.wait(_PATIENCE):
            self._check_alive()

    def _launch(self, method: str) -> Any:
        context: Any = mp.get_context(method)
        self._ready_queue = context.Queue(maxsize=self._capacity)
        self._taken = []
        ready = context.Event()
        # Drawn here, so that a seed of the training also fixes the order of reading.
        seed = random.getrandbits(64)
        process = context.Process(
            target=_read_ahead,
            args=(self.dataset, self._ready_queue, ready, self.queue_size, self.shuffle, seed),
            daemon=True,
        )
        process.start()
        self._proc = process
        return ready

    def _check_alive(self) -> None:
        if self._proc is not None and not self._proc.is_alive():
            code = self._proc.exitcode
            self.stop()
            raise RuntimeError(f"The process that reads the data ended with exit code {code}.")

    def get_batch(self, batch_size: int) -> tuple[bool, Tensor | None, Tensor | None]:
        """The next items if there are enough; never waits.

        Returns
        -------
        bool
            Whether there are.
        cubes : Tensor, shape (B, C, H, W) or None
            Continued to a common size as `pad_and_stack` does.
        labels : Tensor, shape (B, H, W) or None

        Raises
        ------
        RuntimeError
            If the dataset raised in the process, or the process has ended.
        """
        while self._ready_queue is not None and len(self._taken) < batch_size:
            try:
                item = self._ready_queue.get_nowait()
            except queue.Empty:
                self._check_alive()
                return False, None, None
            except OSError:
                # A tensor is fetched from the process that made it.
                self._check_alive()
                raise
            if isinstance(item, _Failure):
                self.stop()
                raise RuntimeError(f"The dataset raised in the process that reads it:\n{item.report}")
            self._taken.append(item)
        if self._ready_queue is None:
            return False, None, None
        items, self._taken = self._taken[:batch_size], self._taken[batch_size:]
        return True, *pad_and_stack(items)

    def stop(self) -> None:
        """End the process, whatever it does; `start` starts a new one."""
        process, ready_queue = self._proc, self._ready_queue
        self._proc = self._ready_queue = None
        self._taken = []
        if process is not None:
            process.terminate()
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        if ready_queue is not None:
            ready_queue.cancel_join_thread()
            ready_queue.close()


def _read_ahead(dataset: Any, items: Any, ready: Any, first: int, shuffle: bool, seed: int) -> None:
    """What the process does: put items until it is ended or its parent has gone."""
    # Ctrl-C is for the training, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # After a fork, torch's threads are gone; and all cores are the training's.
    torch.set_num_threads(1)
    generator = random.Random(seed)
    order: list[int] = list(range(len(dataset)))
    count = 0
    while True:
        for index in order:
            try:
                item = dataset[index]
            except Exception:
                _put(items, _Failure(traceback.format_exc()))
                ready.set()
                # Tensors are fetched from this process, so it waits to be ended.
                while _parent_lives():
                    time.sleep(1.0)
                return
            if not _put(items, item):
                return
            count += 1
            if count >= first:
                ready.set()
        order = list(range(len(dataset)))
        if shuffle:
            generator.shuffle(order)


def _parent_lives() -> bool:
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()


def _put(items: Any, item: Any) -> bool:
    """Wait for a free place; False if the parent has gone."""
    while True:
        with suppress(queue.Full):
            items.put(item, timeout=1.0)
            return True
        if not _parent_lives():
            items.cancel_join_thread()
            return False
