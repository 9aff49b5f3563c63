"""What guards a run's directory: one process at a time, and an orderly end when asked to stop."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qtransformer.errors import ConfigError


class Stop:
    """Whether a signal asked training to end after the current step."""

    requested = False


@contextmanager
def graceful_stop() -> Iterator[Stop]:
    """The first SIGINT or SIGTERM asks for a checkpoint and an end; the second ends at once."""
    stop = Stop()
    previous: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        del frame
        stop.requested = True
        signal.signal(number, previous[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
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
    """One process per run directory. A lock left by a killed process of this machine is taken over."""
    path = directory / "run.lock"
    mine = {"pid": os.getpid(), "host": socket.gethostname()}
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        owner = _read_lock(path)
        if owner["host"] != mine["host"] or _alive(owner["pid"]):
            raise ConfigError(
                f"process {owner['pid']} on {owner['host']} is training in {directory}; wait for it, choose another run=..., "
                f"or delete {path} if that process is gone"
            ) from None
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    with os.fdopen(descriptor, "w") as file:
        json.dump(mine, file)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _read_lock(path: Path) -> dict[str, Any]:
    """Who holds the lock; nobody alive where it cannot be told."""
    try:
        owner = json.loads(path.read_text())
        return {"pid": int(owner["pid"]), "host": str(owner["host"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"pid": -1, "host": socket.gethostname()}


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
