import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qtransformer.errors import ConfigError
from qtransformer.run_guard import exclusive, graceful_stop


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


@pytest.mark.parametrize("content", ["", "{", "dead"])
def test_a_lock_left_by_a_killed_process_is_taken_over(tmp_path: Path, content: str) -> None:
    if content == "dead":
        content = json.dumps({"pid": dead_pid(), "host": os.uname().nodename})
    (tmp_path / "run.lock").write_text(content)
    with exclusive(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()
