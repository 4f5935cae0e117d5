"""Calculations on many processes of this machine, or on the workers of a dask cluster; none of them ends the others."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple, TypeVar

from vpotjax._checks import InputError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ATTEMPTS = 2  # at a calculation whose process dies

Job = TypeVar("Job")


class Done(NamedTuple):
    """A job with what it gave, or with the reason why it gave nothing."""

    job: Any
    result: Any
    reason: str | None


def on_processes(function: Callable[[Job], Any], jobs: Sequence[Job], workers: int) -> Generator[Done]:
    """Results as they come, from `workers` processes with one thread each.

    Processes are spawned, for JAX's threads do not survive a fork, and end with the one that started them. After one
    died those jobs that ran at that time are repeated alone, so that the one at fault is known and no other suffers.

    Raises:
        InputError: no process lives long enough to do anything.
    """
    for variable in THREAD_VARIABLES:  # read by the workers' libraries when they load
        os.environ.setdefault(variable, "1")
    waiting, suspects, deaths, finished = deque(jobs), deque[Any](), Counter[int](), False
    while waiting or suspects:
        queue, count = (suspects, 1) if suspects else (waiting, workers)
        killed: list[Any] = []
        for done in _until_a_death(function, queue, count, killed):
            finished = True
            yield done
        for job in killed:
            deaths[id(job)] += 1
            if deaths[id(job)] < ATTEMPTS:
                suspects.append(job)
            elif finished:
                yield Done(job, None, "its process was killed twice, as for lack of memory")
            else:
                raise InputError(
                    "worker processes die before they finish anything, by lack of memory or of an "
                    f"'if __name__ == \"__main__\"' in a script; try fewer than workers={workers}."
                )


def _until_a_death(
    function: Callable[[Any], Any], queue: deque[Any], workers: int, killed: list[Any]
) -> Generator[Done]:
    """Results of jobs of a queue until it is empty or a process dies; then `killed` are those that ran."""
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_end_with_parent)
    running: dict[Future[Any], Any] = {}
    try:
        while (queue or running) and not killed:
            while queue and len(running) < workers:
                job = queue.popleft()
                running[pool.submit(function, job)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                try:
                    yield Done(running[future], future.result(), None)
                except BrokenProcessPool:
                    killed.append(running[future])
                except Exception as error:  # PySCF raises many types; the other molecules go on
                    yield Done(running[future], None, line_of(error))
                del running[future]
        killed.extend(running.values())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker when the process that started it is killed, or it waits for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def on_cluster(
    function: Callable[[Job], Any], jobs: Sequence[Job], scheduler: str, timeout: float = 20
) -> Generator[Done]:
    """Results as they come, from the workers of the dask scheduler at an address, such as "tcp://node1:8786".

    A job whose worker dies goes to another one; after as many deaths as the scheduler allows it has failed.

    Args:
        function: of a job, both of which can be pickled.
        jobs: any number.
        scheduler: address.
        timeout: seconds in which it has to answer.

    Raises:
        InputError: dask.distributed is not installed, or there is no scheduler.
    """
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise InputError("scheduler needs dask.distributed; pip install 'vpotjax[cluster]'.") from None
    try:
        client = Client(scheduler, timeout=timeout)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"scheduler={scheduler!r} does not answer ({line_of(error)}); check the address.") from None
    with client:
        futures = {client.submit(function, job, pure=False): job for job in jobs}
        for future in as_completed(list(futures)):
            try:
                result, reason = future.result(), None
            except Exception as error:  # of the calculation, or KilledWorker
                result, reason = None, line_of(error)
            yield Done(futures.pop(future), result, reason)
            future.release()


def line_of(error: BaseException) -> str:
    """Type and text of an exception, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
