"""Batches read ahead by a thread, so that training does not wait for a disk."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")

_WAKE = 0.1
"""Seconds after which a thread with nowhere to put its batch looks whether it is still wanted."""


def prefetched(items: Iterator[Item], depth: int = 2) -> Iterator[Item]:
    """The same items in the same order, up to `depth` of them made before they are asked for.

    An exception in `items` is raised where its item would have come. The thread starts with the first item asked for and ends with
    this iterator, whether that is exhausted, closed or dropped; it never keeps the process alive.
    """
    ready = queue.Queue[tuple[Item | None, BaseException | None]](depth)
    dropped = threading.Event()
    thread = threading.Thread(target=_read_ahead, args=(items, ready, dropped), name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # pyright: ignore[reportReturnType]
    finally:
        dropped.set()
        thread.join()


def _read_ahead(
    items: Iterator[Item], ready: "queue.Queue[tuple[Item | None, BaseException | None]]", dropped: threading.Event
) -> None:
    while not dropped.is_set():
        try:
            entry = next(items), None
        except BaseException as error:  # whatever it is, it belongs to the thread that trains
            entry = None, error
        while not dropped.is_set():
            try:
                ready.put(entry, timeout=_WAKE)
                break
            except queue.Full:
                continue
        if entry[1] is not None:
            return
