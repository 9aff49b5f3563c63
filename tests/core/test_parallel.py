"""Workers are processes of their own, so what they run must be found by name: functions of this module."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from qtransformer.errors import DatasetError, QTransformerError
from qtransformer.parallel import default_workers, parallel_map


def make_square() -> Callable[[int], int]:
    def square(x: int) -> int:
        time.sleep(0.02 * (x % 3))
        return x * x

    return square


def make_mortal(folder: Path, lives: int) -> Callable[[int], int]:
    """Dies on job 3 until it has died `lives` times."""

    def work(x: int) -> int:
        if x == 3 and len(list(folder.iterdir())) < lives:
            (folder / f"{os.getpid()}").touch()
            os.kill(os.getpid(), 9)
        return -x

    return work


def make_failing(kind: type[Exception]) -> Callable[[int], int]:
    def work(x: int) -> int:
        if x == 2:
            raise kind("no such episode")
        return x

    return work


def make_slowly() -> Callable[[int], int]:
    time.sleep(3)
    return abs


def make_broken() -> Callable[[int], int]:
    raise DatasetError("no such checkpoint")


def make_hanging() -> Callable[[int], int]:
    def work(x: int) -> int:
        if x == 1:
            time.sleep(60)
        return x

    return work


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs(workers: int) -> None:
    assert list(parallel_map(make_square, range(9), workers=workers)) == [x * x for x in range(9)]


def test_no_jobs_need_no_workers() -> None:
    assert list(parallel_map(make_square, [])) == []


def test_a_job_whose_worker_was_killed_is_tried_again(tmp_path: Path) -> None:
    assert list(parallel_map(partial(make_mortal, tmp_path, 1), range(6), workers=2)) == [0, -1, -2, -3, -4, -5]


def test_a_job_that_kills_its_worker_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(QTransformerError, match=r"job 3 failed 2 times.*died.*-9"):
        list(parallel_map(partial(make_mortal, tmp_path, 9), range(6), workers=2))


def test_an_exception_passes_with_its_message_or_as_it_is() -> None:
    with pytest.raises(QTransformerError, match=r"(?s)job 2 failed.*ValueError: no such episode"):
        list(parallel_map(partial(make_failing, ValueError), range(4), workers=2))
    with pytest.raises(DatasetError, match="no such episode"):
        list(parallel_map(partial(make_failing, DatasetError), range(4), workers=2))


def test_a_job_that_hangs_is_named() -> None:
    with pytest.raises(QTransformerError, match=r"job 1 failed 2 times.*longer than 5 s"):
        list(parallel_map(make_hanging, range(3), workers=2, timeout=5.0))


def test_what_a_worker_takes_to_get_ready_is_no_part_of_its_job() -> None:
    assert list(parallel_map(make_slowly, range(2), workers=2, timeout=1.0)) == [0, 1]


def test_a_worker_that_cannot_be_made_says_why() -> None:
    with pytest.raises(DatasetError, match="no such checkpoint"):
        list(parallel_map(make_broken, range(2), workers=2))


def test_there_is_a_core_to_work_on() -> None:
    assert default_workers() >= 1
