"""Threads that stay: everything is run once, errors come out, nested calls and forked processes end."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

from arcforge.engine import render_batch
from arcforge.engine.threads import for_each


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_task_runs_once_in_no_more_threads_than_asked_for(threads):
    done, seen = [], set()

    def run(task):
        time.sleep(0.001)
        seen.add(threading.get_ident())
        done.append(task)

    for_each(run, range(40), threads)
    assert sorted(done) == list(range(40))
    assert len(seen) <= threads
    if threads > 1:
        assert len(seen) > 1
        assert threading.get_ident() not in seen


def test_threads_of_one_call_serve_the_next():
    seen = set()
    for _ in range(20):
        for_each(lambda _: (time.sleep(0.001), seen.add(threading.get_ident())), range(4), 2)
    assert len(seen) == 2


def test_an_error_ends_the_rest_and_waits_for_what_runs():
    running, begun = [], []

    def run(task):
        begun.append(task)
        if task == 1:
            raise ValueError("task 1")
        running.append(task)
        time.sleep(0.05)
        running.remove(task)

    with pytest.raises(ValueError, match="task 1"):
        for_each(run, range(100), 2)
    assert not running
    assert len(begun) < 10


def test_tasks_of_tasks_end():
    done = []

    def outer(k):
        for_each(lambda j: done.append((k, j)), range(8), 4)

    for_each(outer, range(8), 4)
    assert len(done) == 64


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_renders_with_threads_of_its_own(lens_rows):
    table = lens_rows(40, src_x_arcsec=np.linspace(0.0, 0.5, 40))
    images = render_batch(table, bands="r", threads=2)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        same = np.array_equal(render_batch(table, bands="r", threads=2), images)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
