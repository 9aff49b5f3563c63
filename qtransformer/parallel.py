"""Run many jobs on all cores, surviving workers that die or hang."""

import multiprocessing
import multiprocessing.connection
import os
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Generic, TypeVar

from qtransformer.errors import QTransformerError

Job = TypeVar("Job")
Result = TypeVar("Result")

JOB_TIMEOUT = 300.0
"""Seconds after which a job counts as hung."""
START_TIMEOUT = 120.0
"""Seconds that a process may take besides to start, import and make what it works with: long on a busy machine, and no fault of
its job."""
ATTEMPTS = 2
"""How often a job is tried when its worker dies or hangs, before all stops."""


def default_workers() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(
    make_worker: Callable[[], Callable[[Job], Result]],
    jobs: Iterable[Job],
    workers: int = 0,
    timeout: float = JOB_TIMEOUT,
) -> Iterator[Result]:
    """Results of all jobs, in the order of the jobs.

    Args:
        make_worker: called once in each worker process; what it returns is called with one job at a time. Must be picklable.
        jobs: picklable jobs.
        workers: processes; 0 uses every core, 1 runs in this process.
        timeout: seconds a job may take, once its process has started.

    Raises:
        QTransformerError: a job failed, or its worker died or hung twice. Names the job.
    """
    pending = deque(jobs)
    workers = min(workers or default_workers(), len(pending))
    if workers <= 1:
        work = make_worker() if pending else None
        for job in pending:
            yield work(job)  # pyright: ignore[reportOptionalCall]
        return
    pool = _Pool(make_worker, pending, workers, timeout)
    try:
        yield from pool.results()
    finally:
        pool.close()


@dataclass
class _Worker:
    process: Any
    pipe: Any
    job: int
    deadline: float


class _Pool(Generic[Job, Result]):
    def __init__(
        self, make_worker: Callable[[], Callable[[Job], Result]], jobs: Iterable[Job], workers: int, timeout: float
    ) -> None:
        self._make_worker, self._jobs, self._timeout = make_worker, list(jobs), timeout
        self._next = 0
        self._attempts: dict[int, int] = {}
        self._context = multiprocessing.get_context("spawn")  # fork would copy PyTorch's threads and PyBullet's client
        self._workers = [self._start(self._take()) for _ in range(workers)]

    def results(self) -> Iterator[Result]:
        done: dict[int, Result] = {}
        for index in range(len(self._jobs)):
            while index not in done:
                done.update(self._collect())
            yield done.pop(index)

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()

    def _start(self, job: int) -> _Worker:
        parent, child = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(self._make_worker, child), daemon=True)
        process.start()
        child.close()
        worker = _Worker(process, parent, -1, 0.0)
        self._assign(worker, job)
        worker.deadline += START_TIMEOUT
        return worker

    def _take(self) -> int:
        job, self._next = self._next, self._next + 1
        return job

    def _assign(self, worker: _Worker, job: int) -> None:
        worker.job = job if job < len(self._jobs) else -1
        if worker.job >= 0:
            self._attempts[job] = self._attempts.get(job, 0) + 1
            worker.deadline = monotonic() + self._timeout
            with suppress(OSError):  # a worker that died idle: `_collect` finds its pipe closed and replaces it
                worker.pipe.send(self._jobs[job])

    def _collect(self) -> dict[int, Result]:
        """Wait until some worker finished its job, or replace one that died or hung."""
        busy = {w.pipe: w for w in self._workers if w.job >= 0}
        patience = max(0.0, min(w.deadline for w in busy.values()) - monotonic())
        ready = multiprocessing.connection.wait(list(busy), timeout=patience)
        if not ready:
            hint = "if it was not hung, workers=1 waits without a limit"
            self._replace(min(busy.values(), key=lambda w: w.deadline), f"took longer than {self._timeout:.0f} s; {hint}")
            return {}
        done: dict[int, Result] = {}
        for pipe in ready:
            worker = busy[pipe]  # pyright: ignore[reportArgumentType]
            try:
                answer = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                worker.process.join()
                self._replace(worker, f"its process died (exit code {worker.process.exitcode}); is memory short?")
                continue
            if answer is None:  # it is ready
                worker.deadline = monotonic() + self._timeout
                continue
            ok, value = answer
            if not ok:
                raise value
            done[worker.job] = value
            self._assign(worker, self._take())
        return done

    def _replace(self, worker: _Worker, reason: str) -> None:
        worker.process.kill()
        worker.process.join()
        job = worker.job
        if self._attempts[job] >= ATTEMPTS:
            raise QTransformerError(f"job {self._jobs[job]!r} failed {ATTEMPTS} times: {reason}")
        self._workers.remove(worker)
        self._workers.append(self._start(job))


def _serve(make_worker: Callable[[], Callable[[Any], Any]], pipe: Any) -> None:
    """A worker process: make what it works with, say that it is ready, then answer jobs until the parent goes away."""
    with suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
        ready, work = _tried(make_worker, "a worker")
        pipe.send(None if ready else (False, work))
        while ready:
            job = pipe.recv()
            pipe.send(_tried(partial(work, job), f"job {job!r}"))


def _tried(call: Callable[[], Any], name: str) -> tuple[bool, Any]:
    """Whether it went well, and its result or the error to raise in the parent."""
    try:
        return True, call()
    except QTransformerError as error:
        return False, error
    except Exception:
        return False, QTransformerError(f"{name} failed:\n{traceback.format_exc()}")
