"""Reading ahead changes when things happen, never what."""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from itertools import count, islice

import pytest

from qtransformer_datasets.prefetch import prefetched


def reading_ahead() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    gc.collect()
    assert reading_ahead() == []


def test_items_come_in_their_order_and_end_where_they_end():
    assert list(prefetched(iter(range(100)))) == list(range(100))
    assert list(prefetched(iter([]))) == []


def test_no_more_is_made_than_asked_for():
    made = []
    items = prefetched((made.append(i) or i for i in count()), depth=2)
    assert made == [], "nothing is made for an iterator that nobody reads"
    assert next(items) == 0
    time.sleep(0.3)
    assert 3 <= len(made) <= 4  # the one given, two ready, one in hand
    items.close()


def test_an_exception_is_raised_in_its_place():
    def failing():
        yield from range(5)
        raise ValueError("disk on fire")

    items = prefetched(failing())
    assert list(islice(items, 5)) == list(range(5))
    with pytest.raises(ValueError, match="disk on fire"):
        next(items)


@pytest.mark.parametrize("read", [1, 7])
def test_an_unfinished_iterator_lets_its_thread_end(read):
    items = prefetched(count())
    assert list(islice(items, read)) == list(range(read))
    assert len(reading_ahead()) == 1
    del items
    gc.collect()
    assert reading_ahead() == []


def test_a_process_asked_to_stop_while_waiting_for_a_batch_stops():
    def work():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        stuck = iter(lambda: time.sleep(0.05), 1)
        for i, _ in enumerate(prefetched(stuck)):
            if i == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(30)
    assert process.exitcode == 7
