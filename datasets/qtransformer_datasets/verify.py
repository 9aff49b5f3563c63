"""Reading a whole dataset in a process of its own first, because libraries can hang or crash on damaged files.

A damaged heap of strings sends libhdf5 into an endless loop, and other damage can end its process; nothing inside a process can
guard against either. `verify` can: whatever a file does to its reader, the caller gets a list of problems, in bounded time. What
it found sound can then be read in the caller's own process, as long as the file does not change.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qtransformer.errors import DatasetError, QTransformerError

TIMEOUT = 60.0
"""Processor time that opening a dataset or reading one episode may take [s]: busy machines and slow disks do not count."""
WALL_FACTOR = 10.0
"""Times this on the clock, a child that waits for something is stopped, too."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What reading everything found."""

    lengths: dict[int, int] = field(default_factory=dict)
    """Number of every sound episode to its steps."""
    problems: list[str] = field(default_factory=list)
    """One sentence each."""


def verify(path: str | os.PathLike[str], format: str = "auto", *, timeout: float = TIMEOUT, **options: Any) -> Verdict:
    """Open and read every episode in child processes; never raises for what is wrong with the data, never hangs.

    Args:
        path: file or directory.
        format: name in `formats.FORMATS`, or "auto".
        timeout: seconds of processor time after which a child that is stuck at opening or at one episode is stopped.
        options: of that format's reader; what JSON can hold.
    """
    verdict, start, count = Verdict(), 0, None
    while count is None or start < count:
        request = {"path": str(path), "format": format, "options": options, "start": start, "timeout": timeout}
        count, stuck, how = _one_child(request, verdict)
        if how is None:
            break
        if stuck is None:
            verdict.problems.append(f"{path}: {how} while it was opened; restore the file from its source")
            break
        verdict.problems.append(f"{path}, episode {stuck}: {how}; remove the episode, or restore the file from its source")
        start = stuck + 1
    return verdict


def check_sound(path: str | os.PathLike[str], format: str = "auto", **options: Any) -> None:
    """Raise a DatasetError with the first problem, and how many there are, unless `verify` finds none."""
    problems = verify(path, format, **options).problems
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise DatasetError(problems[0] + more)


def _one_child(request: dict[str, Any], verdict: Verdict) -> tuple[int | None, int | None, str | None]:
    """Let a child read from episode `start` on. How many episodes there are, at which it stuck, and how (None: it did not)."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", __name__, json.dumps(request)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    count, at, how = None, None, None
    try:
        for kind, *rest in _messages(process, WALL_FACTOR * request["timeout"]):
            if kind == "count":
                count = rest[0]
            elif kind == "at":
                at = rest[0]
            elif kind == "sound":
                verdict.lengths[rest[0]] = rest[1]
            elif kind == "problem":
                verdict.problems.append(rest[0])
            elif kind == "done":
                return count, None, None
        how = _ending(process.wait())
    except TimeoutError:
        how = "its reader hung and was stopped"
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    return count, at, how


def _messages(process: subprocess.Popen[bytes], patience: float) -> Iterator[list[Any]]:
    """The child's lines as they come; TimeoutError when none comes for `patience` seconds."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    buffer, deadline = b"", time.monotonic() + patience
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(deadline - time.monotonic(), 0.0)):
                raise TimeoutError
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                yield json.loads(line)
            deadline = time.monotonic() + patience


def _ending(code: int) -> str:
    if code == -signal.SIGPROF:
        return "its reader hung and was stopped"
    if code < 0:
        return f"its reader crashed ({signal.Signals(-code).name})"
    return f"its reader ended with exit code {code}"


def _child(request: dict[str, Any]) -> None:
    """Read everything from episode `start` on, and say on standard output how it goes."""
    from qtransformer_datasets.formats import open_episodes

    def say(*message: Any) -> None:
        signal.setitimer(signal.ITIMER_PROF, request["timeout"])  # unhandled, its signal ends even a loop inside a library
        print(json.dumps(message), flush=True)

    say("opening")
    try:
        source = open_episodes(Path(request["path"]), request["format"], **request["options"])
    except QTransformerError as error:
        say("problem", str(error))
        say("done")
        return
    say("count", len(source))
    for index in range(request["start"], len(source)):
        say("at", index)
        try:
            say("sound", index, len(source.read(index)))
        except QTransformerError as error:
            say("problem", str(error))
    say("done")


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]))
