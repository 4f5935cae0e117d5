"""Calculations on processes and on a cluster: no death of a worker loses a job, or another job's result."""

import functools
import os
import signal
import time

import pytest

from vpotjax._checks import InputError
from vpotjax.reference.workers import on_cluster, on_processes


def squared(folder, number):
    """Numbers from 100 kill their process; 100 and 101 only for the first time; negative ones raise."""
    if number < 0:
        raise ValueError(f"{number} is\nnegative")
    mark = folder / str(number)
    if number >= 102 or (number >= 100 and not mark.exists()):
        mark.touch()
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def outcome(folder, numbers, run):
    return {done.job: done.result if done.reason is None else done.reason for done in run(numbers)}


def test_results_failures_and_deaths(tmp_path):
    numbers = [1, 2, 100, 3, 102, -4, 101, 5]
    found = outcome(tmp_path, numbers, lambda jobs: on_processes(functools.partial(squared, tmp_path), jobs, 2))
    expected = {n: n**2 for n in numbers} | {-4: "ValueError: -4 is negative"}
    assert found == expected | {102: "its process was killed twice, as for lack of memory"}


def test_processes_that_all_die(tmp_path):
    with pytest.raises(InputError, match=r"worker processes die before they finish .*fewer than workers=2"):
        list(on_processes(functools.partial(squared, tmp_path), [102, 103], 2))
    assert list(on_processes(functools.partial(squared, tmp_path), [], 2)) == []


def test_no_scheduler():
    with pytest.raises(InputError, match=r"scheduler='127\.0\.0\.1:9' does not answer \(.*\); check the address"):
        list(on_cluster(squared, [1], "127.0.0.1:9", timeout=2))


def test_a_cluster_that_loses_a_worker(tmp_path):
    """The jobs of the dead worker go to the other one, and to the one that a nanny starts in its place."""
    distributed = pytest.importorskip("distributed")
    numbers = [1, 2, 100, 3, -4, 5, 6, 7]
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 60}
    with distributed.LocalCluster(**options) as cluster:
        run = functools.partial(on_cluster, functools.partial(squared, tmp_path), scheduler=cluster.scheduler_address)
        found = outcome(tmp_path, numbers, run)
    assert found == {n: n**2 for n in numbers} | {-4: "ValueError: -4 is negative"}
