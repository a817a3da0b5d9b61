"""Work done in the background for the next turn of a loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of jobs, in order; one thread works on the next job while the caller uses a result.

    At most two results exist at a time, if the caller drops one before it asks for the next. What a job raises is
    raised where its result is asked for. The thread ends with the iterator, when it is exhausted or closed.
    """
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="spectrafuse-ahead") as pool:
        try:
            for job in jobs:
                pending.append(pool.submit(job))
                if len(pending) == 2:
                    # Nothing here may keep a reference to a result.
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
