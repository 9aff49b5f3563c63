"""Batches read ahead by a thread, so that training does not wait for a disk."""

import resource
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
SPELL = 128
"""Items read ahead before it is seen again whether the disk is waited for."""


def disk_waits() -> int:
    """How often this process has had to wait for a page of a mapped file to come from the disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def prefetched_from_disk(items: Iterator[Item], waits: Callable[[], int] = disk_waits) -> Iterator[Item]:
    """The same items: each made when it is asked for, but after one that had to wait for the disk, a `SPELL` is read ahead.

    What lies in memory takes less time to copy than to hand from one thread to another on a busy machine.
    """
    while True:
        before = waits()
        try:
            made = [next(items)]  # handed over, not kept: its memory is used again
        except StopIteration:
            return
        waited = waits() > before
        yield made.pop()
        if waited:
            yield from prefetched(islice(items, SPELL))


def prefetched(items: Iterator[Item], depth: int = 2) -> Iterator[Item]:
    """The same items in the same order, up to `depth` of them made before they are asked for.

    An exception in `items` is raised where its item would have come. The thread starts with the first item asked for and ends with
    this iterator, whether that is exhausted, closed or dropped; it never keeps the process alive.
    """
    wanted, ready = SimpleQueue[bool](), SimpleQueue[tuple[Item | None, BaseException | None]]()
    dropped = threading.Event()
    thread = threading.Thread(target=_read_ahead, args=(items, wanted, ready, dropped), name="prefetch", daemon=True)
    thread.start()
    for _ in range(depth):
        wanted.put(True)
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            wanted.put(True)
            yield item  # pyright: ignore[reportReturnType]
    finally:
        dropped.set()
        wanted.put(False)
        thread.join()


def _read_ahead(
    items: Iterator[Item],
    wanted: "SimpleQueue[bool]",
    ready: "SimpleQueue[tuple[Item | None, BaseException | None]]",
    dropped: threading.Event,
) -> None:
    while wanted.get() and not dropped.is_set():
        try:
            ready.put((next(items), None))
        except BaseException as error:  # whatever it is, it belongs to the thread that trains
            ready.put((None, error))
            return
