"""Reading ahead changes when things happen, never what."""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from itertools import chain, count, islice, repeat

import pytest

from qtransformer_datasets.stream.prefetch import SPELL, prefetched, prefetched_from_disk


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


def test_a_thread_reads_ahead_for_a_while_after_an_item_that_had_to_wait_for_the_disk():
    waits = chain([5, 5, 5, 5, 5, 6], repeat(6))  # before and after each item: the third one waits
    items = prefetched_from_disk(count(), waits=lambda: next(waits))
    assert list(islice(items, 3)) == [0, 1, 2]
    assert reading_ahead() == []
    assert list(islice(items, SPELL)) == list(range(3, 3 + SPELL))
    assert len(reading_ahead()) == 1
    assert list(islice(items, 9)) == list(range(3 + SPELL, 12 + SPELL))
    assert reading_ahead() == []


def test_items_end_within_a_spell():
    waits = count()
    items = prefetched_from_disk(iter(range(SPELL + 50)), waits=lambda: next(waits))
    assert list(items) == list(range(SPELL + 50))


def test_without_waits_items_end_where_they_end():
    assert list(prefetched_from_disk(iter(range(7)), waits=lambda: 0)) == list(range(7))


def test_an_item_is_not_kept_while_the_next_is_made():
    class Item:
        pass

    alive = []

    def make():
        for _ in range(3):
            gone = [ref() for ref in alive]
            assert gone == [None] * len(alive)
            item = Item()
            alive.append(weakref.ref(item))
            yield item
            del item

    assert sum(1 for _ in map(type, prefetched_from_disk(make(), waits=lambda: 0))) == 3


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
