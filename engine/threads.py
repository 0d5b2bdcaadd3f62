"""Threads that stay: a call gives its tasks to threads that hold plans and scratch of earlier calls."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from arcforge.engine.errors import RenderError

Task = TypeVar("Task")

# By their number of threads; calls of one number share theirs
_pools: dict[int, ThreadPoolExecutor] = {}
_OF_POOL = threading.local()  # has a ``thread`` in the pools' own


def usable_threads(threads: int | None) -> int:
    """Return the number of threads to use: the given one, or every core this process may run on."""
    if threads is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else (os.cpu_count() or 1)
    if threads < 1:
        raise RenderError(f"threads is {threads}; give a positive number, or none for every core")
    return threads


def for_each(run: Callable[[Task], object], tasks: Iterable[Task], threads: int) -> None:
    """Run tasks in so many threads and wait for them; the first error ends the rest and is raised.

    Tasks of tasks run one after the other in the thread of theirs.
    """
    left = deque(tasks)

    def work() -> None:
        while left:
            try:
                task = left.popleft()
            except IndexError:  # another thread was quicker
                return
            try:
                run(task)
            except BaseException:
                left.clear()
                raise

    if threads == 1 or len(left) <= 1 or hasattr(_OF_POOL, "thread"):
        work()
        return
    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(threads, "arcforge-render", initializer=_mark)
    started = [_pools[threads].submit(work) for _ in range(min(threads, len(left)))]
    try:
        for future in started:
            future.result()
    finally:
        left.clear()
        wait(started)


def _mark() -> None:
    _OF_POOL.thread = threading.current_thread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # a forked process has none of its parent's threads
