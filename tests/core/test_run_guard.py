import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qtransformer.errors import ConfigError
from qtransformer.run_guard import exclusive, graceful_stop, is_held


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own handler, even where a shell started the tests in the background and had them ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_first_signal_asks_and_the_second_ends() -> None:
    with graceful_stop() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_the_second_signal_ends_at_once_whichever_it_is() -> None:
    with graceful_stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_terminal_that_closes_asks_for_an_end_unless_that_is_ignored() -> None:
    with graceful_stop() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.requested
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with graceful_stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_is_heard_where_a_background_shell_had_it_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with graceful_stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.requested
    finally:
        signal.signal(signal.SIGINT, before)


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with graceful_stop():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    with exclusive(tmp_path):
        with pytest.raises(ConfigError, match=f"process {os.getpid()}"), exclusive(tmp_path):
            pass
        assert (tmp_path / "run.lock").exists(), "the refused one must not free the owner's lock"
    assert not (tmp_path / "run.lock").exists()


def test_the_lock_goes_when_training_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a bug"), exclusive(tmp_path):
        raise ValueError("a bug")
    with exclusive(tmp_path):
        pass


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("content", ["", "{", "dead", "this"])
def test_a_lock_left_by_a_killed_process_is_taken_over(tmp_path: Path, content: str) -> None:
    """In a container that was started again, the process that was killed had the number that this one has."""
    pids = {"dead": dead_pid, "this": os.getpid}
    if content in pids:
        content = json.dumps({"pid": pids[content](), "host": os.uname().nodename})
    (tmp_path / "run.lock").write_text(content)
    with exclusive(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()


def test_a_lock_that_says_nothing_yet_is_respected(tmp_path: Path) -> None:
    with (tmp_path / "run.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_held(tmp_path / "run.lock")
        with pytest.raises(ConfigError, match="another process is training"), exclusive(tmp_path):
            pass
    assert not is_held(tmp_path / "run.lock")


def test_a_lock_of_another_machine_is_left_to_the_user(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    lock.write_text(json.dumps({"pid": 1, "host": "another-machine"}))
    assert is_held(lock)
    with pytest.raises(ConfigError, match=f"process 1 on another-machine.*delete {lock}"), exclusive(tmp_path):
        pass
    assert lock.exists()


def test_of_many_that_find_the_same_old_lock_one_takes_it_over(tmp_path: Path) -> None:
    old, count = json.dumps({"pid": dead_pid(), "host": os.uname().nodename}), 8
    for _ in range(20):
        (tmp_path / "run.lock").write_text(old)
        begin, tried, refused = threading.Barrier(count), threading.Barrier(count), list[str]()

        def enter(begin: threading.Barrier = begin, tried: threading.Barrier = tried, refused: list[str] = refused) -> None:
            begin.wait()
            try:
                with exclusive(tmp_path):
                    tried.wait()
            except ConfigError as error:
                refused.append(str(error))
                tried.wait()

        threads = [threading.Thread(target=enter) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == count - 1
        assert not (tmp_path / "run.lock").exists()


def test_a_lock_that_its_owner_deletes_meanwhile_guards_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was opened just before that, and is locked just after."""
    path, lock, first = tmp_path / "run.lock", fcntl.flock, [True]

    def flock(descriptor: int, kind: int) -> None:
        if first.pop() if first else False:
            path.unlink()
        lock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
    with exclusive(tmp_path), pytest.raises(ConfigError, match=f"process {os.getpid()}"), exclusive(tmp_path):
        pass


def test_programs_that_a_training_starts_do_not_keep_its_lock(tmp_path: Path) -> None:
    """They may outlive a killed training, which does not delete its lock."""
    lock, left = tmp_path / "run.lock", tmp_path / "left.lock"
    with exclusive(tmp_path):
        piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        child = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], close_fds=False, **piped)
        child.stdout.readline()  # it runs: the system closes what is not inherited only after Popen has come back
        os.link(lock, left)
    left.rename(lock)
    with child, exclusive(tmp_path):
        child.communicate(b"\n")
