"""What guards a run's directory: one process at a time, and an orderly end when asked to stop."""

import fcntl
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qtransformer.errors import ConfigError


def run_exists(directory: Path) -> ConfigError:
    """The refusal to begin a run where there is one."""
    return ConfigError(
        f"{directory} holds a run already: `qtransformer resume run={directory}` goes on with it, another run=... starts a new one"
    )


class Stop:
    """Whether a signal asked training to end after the current step."""

    requested = False


@contextmanager
def graceful_stop() -> Iterator[Stop]:
    """The first SIGINT, SIGTERM or SIGHUP (a terminal that is closed) asks for a checkpoint and an end; the second ends at once."""
    stop = Stop()
    previous: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        del number, frame
        stop.requested = True
        for other, handler in previous.items():
            signal.signal(other, handler)

    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` has a terminal's end ignored
                previous[number] = signal.signal(number, handle)
    except ValueError:
        pass  # signals belong to the main thread; elsewhere the caller's own handling stays
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """One process per run directory, by a lock that the system frees however its process ends. Programs started meanwhile do not
    inherit it.

    Raises:
        ConfigError: another process trains there; or one of another machine, whose locks need not be seen here, did not tidy up.
    """
    path = directory / "run.lock"
    descriptor = _locked(path)
    if descriptor is None:
        raise ConfigError(_taken(path))
    try:
        if _of_another_machine(path):
            raise ConfigError(_taken(path))
        os.truncate(descriptor, 0)
        os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is locked: afterwards it might be another's
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process is training under this lock; one of another machine is taken to."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return path.exists()  # another user's; or deleted just now
    try:
        return _of_another_machine(path) or not _lock(descriptor, fcntl.LOCK_SH, path)
    finally:
        os.close(descriptor)


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock; None where another process does."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
        if not _lock(descriptor, fcntl.LOCK_EX, path):
            os.close(descriptor)
            return None
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)  # its owner deleted it after it was opened here: it guards nothing any more


def _lock(descriptor: int, kind: int, path: Path) -> bool:
    """Whether the lock was free."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ConfigError(f"{path} cannot be locked ({error}); choose a run=... on a file system that has locks") from error
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _taken(path: Path) -> str:
    owner = _read_owner(path)
    who = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
    return f"{who} is training in {path.parent}; wait for it, choose another run=..., or delete {path} if that process is gone"


def _of_another_machine(path: Path) -> bool:
    owner = _read_owner(path)
    return owner is not None and owner["host"] != socket.gethostname()


def _read_owner(path: Path) -> dict[str, Any] | None:
    """Who took the lock last; None where it cannot be told."""
    try:
        owner = json.loads(path.read_text())
        return {"pid": int(owner["pid"]), "host": str(owner["host"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
