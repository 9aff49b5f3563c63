"""Reading whole datasets in a process of its own first, because libraries can hang or crash on damaged files.

A damaged heap of strings sends libhdf5 into an endless loop, and other damage can end its process; nothing inside a process can
guard against either. `verify` can: whatever a file does to its reader, the caller gets a list of problems, in bounded time. What
it found sound can then be read in the caller's own process, as long as the file does not change.

`Verifier` keeps its child from one dataset to the next, for a child takes a second to start. Both sides speak JSON, a line each:

    to the child    {"source": DataSource.to_value(), "start": first episode, "timeout": seconds}
    from the child  ["opening"], then ["report", text] and ["problem", sentence] on the whole, ["count", episodes],
                    of every episode ["at", index] and ["sound", index, steps] or ["problem", sentence], ["done"];
                    anywhere ["warning", text]
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qtransformer.errors import QTransformerError
from qtransformer_datasets.curation.survey import Doubts, open_anyway, problems_of_whole, reports_on, size_on_disk
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.episodes.check import problems_of
from qtransformer_datasets.episodes.protocols import LoggedEpisodes

TIMEOUT = 60.0
"""Processor time that opening a dataset or reading one episode may take [s]: busy machines and slow disks do not count."""
BYTES_PER_SECOND = 20e6
"""At this speed the whole dataset may be read beside that: opening bags scans all of them."""
WALL_FACTOR = 10.0
"""Times this on the clock, a child that waits for something is stopped, too."""
MAX_STUCK = 20
"""Episodes of one dataset that may end their reader before the rest is given up."""

Progress = Callable[[int, int], None]
"""Called with the number of episodes read so far, and of all."""


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What reading everything found."""

    path: str
    lengths: dict[int, int] = field(default_factory=dict)
    """Number of every sound episode to its steps."""
    problems: list[str] = field(default_factory=list)
    """One sentence each."""
    reports: list[str] = field(default_factory=list)
    """What the format tells of the parts of a dataset: of bags, the rates and gaps of every topic."""

    @property
    def steps(self) -> int:
        return sum(self.lengths.values())


def verify(path: str | os.PathLike[str], format: str = "auto", *, timeout: float = TIMEOUT, **options: Any) -> FileCheck:
    """Open and read every episode in child processes; never raises for what is wrong with the data, never hangs.

    Args:
        path: file or directory.
        format: name in `formats.FORMATS`, or "auto".
        timeout: seconds of processor time (more where the dataset is large) after which a child that is stuck at opening or at
            one episode is stopped.
        options: as of `DataSource`: of every dataset, and of that format's reader.
    """
    with Verifier(timeout) as verifier:
        return verifier.verify(DataSource.parse({"path": str(path), "format": format, **options}))


class Verifier:
    """Reads datasets, one after the other, in a child process that is replaced when one of them ends it. A context."""

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def verify(self, source: DataSource, progress: Progress = lambda done, count: None) -> FileCheck:
        """Everything that is wrong with a dataset; a setting that does not exist counts as such, too."""
        check, start, count = FileCheck(source.path), 0, None
        for _ in range(MAX_STUCK):
            count, stuck, how = self._read(source, start, check, progress)
            if how is None:
                return check
            if count is None or stuck is None:
                check.problems.append(f"{source.path}: {how} while it was opened; restore the file from its source")
                return check
            remedy = "remove the episode, or restore the file from its source"
            check.problems.append(f"{source.path}, episode {stuck}: {how}; {remedy}")
            start = stuck + 1
            if start == count:
                return check
        check.problems.append(
            f"{source.path}: after {MAX_STUCK} episodes that ended their reader, those from {start} on were not read; "
            "restore the file from its source"
        )
        return check

    def _read(
        self, source: DataSource, start: int, check: FileCheck, progress: Progress
    ) -> tuple[int | None, int | None, str | None]:
        """Let the child read from episode `start` on. How many there are, at which it stuck, and how (None: it did not)."""
        size = size_on_disk(Path(source.path)) if os.path.exists(source.path) else 0
        timeout = self._timeout + size / BYTES_PER_SECOND
        count, at = None, None
        try:
            process = self._ask({"source": source.to_value(), "start": start, "timeout": timeout})
            for kind, *rest in _messages(process, WALL_FACTOR * timeout):
                if kind == "count":
                    [count] = rest
                elif kind == "at":
                    [at] = rest
                    progress(at, count or 0)
                elif kind == "sound":
                    check.lengths[rest[0]] = rest[1]
                elif kind == "problem":
                    check.problems.append(rest[0])
                elif kind == "report":
                    check.reports.append(rest[0])
                elif kind == "warning":
                    warnings.warn(rest[0], stacklevel=3)
                elif kind == "done":
                    progress(count or 0, count or 0)
                    return count, None, None
            return count, at, _ending(process.wait())
        except TimeoutError:
            self._stop()
            return count, at, "its reader hung and was stopped"

    def _ask(self, request: dict[str, Any]) -> subprocess.Popen[bytes]:
        """Send a request to the child, a new one if need be."""
        if self._process is None or self._process.poll() is not None:
            self._stop()
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                bufsize=0,
            )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # its silence tells
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return self._process

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process = None


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


def _serve() -> None:
    """Answer the requests on standard input until it is closed."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    for line in sys.stdin:
        request = json.loads(line)

        def say(*message: Any, timeout: float = request["timeout"]) -> None:
            signal.setitimer(signal.ITIMER_PROF, timeout)  # unhandled, its signal ends even a loop inside a library
            print(json.dumps(message), file=answers, flush=True)

        warnings.showwarning = lambda message, *_, say=say, **__: say("warning", str(message))
        say("opening")
        _tell_all(DataSource.parse(request["source"]), request["start"], say)
        say("done")


def _tell_all(source: DataSource, start: int, say: Callable[..., None]) -> None:
    """Read everything from episode `start` on, and say how it goes; what is true of the whole only where `start` is the first."""
    problems = list[str]()
    episodes = _opened(source, problems)
    if start == 0:
        for report in reports_on(source, episodes):
            say("report", report)
        for problem in [*problems, *(problems_of_whole(episodes) if episodes else [])]:
            say("problem", problem)
    if episodes is None:
        return
    say("count", len(episodes))
    doubts = Doubts(episodes)  # of a reader that crashed, those of the episodes after it
    for index in range(start, len(episodes)):
        say("at", index)
        try:
            episode = episodes.read(index)
        except QTransformerError as error:
            for problem in problems_of(error):
                say("problem", problem)
            continue
        for doubt in doubts.of_episode(index, episode):
            say("problem", doubt)
        say("sound", index, len(episode))
    for doubt in doubts.of_whole():
        say("problem", doubt)


def _opened(source: DataSource, problems: list[str]) -> LoggedEpisodes | None:
    try:
        return open_anyway(source, problems)
    except QTransformerError as error:  # a setting that does not fit this dataset, whatever it does for others
        problems.append(str(error))
        return None


if __name__ == "__main__":
    _serve()
