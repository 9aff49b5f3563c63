"""Damage datasets and read them: `make fuzz`, or

    python tests/fuzz/run.py                       2,000 cases over every format
    python tests/fuzz/run.py --cases 300 --only minari --seed 1

A case flips bytes, cuts a file short or blanks a block, as (seed, sample, case) says, and reads everything in a child process.
Allowed: the project's own error; the same content as before; other content, where the format has no checksums. Not allowed:
another exception, and other content where there are checksums. A reader that hangs or crashes inside a library is only allowed if
`verify` contains it: reports it as a problem, in bounded time. Exits non-zero at the first thing that is not allowed.

A further format is a further line in `SAMPLES`.
"""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import resource
import shutil
import signal
import sys
import tempfile
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from tqdm import tqdm

from qtransformer.errors import QTransformerError
from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets import create_writer, open_episodes, verify

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from robot_bag import write_bag
from tests.episodes import make_episode

CONTRACT = Path(__file__).with_name("contract.yaml")
"""What the topics of the bags mean: `robot_bag.contract(ACTIONS, OBSERVATIONS)`, written down."""
CPU_SECONDS = 5.0
"""Processor time a case may take before it counts as hung: the clock says little on a busy machine."""
WALL_SECONDS = 600.0
MEMORY = 8 << 30
"""Address space of a child [bytes]: a size that is believed unchecked becomes an error."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A small good dataset, and how it is read."""

    name: str
    format: str
    make: Callable[[Path], Path]
    """Writes into an empty folder, and returns what to open."""
    checksums: bool
    """Whether whatever is read of a damaged dataset must be what was written."""
    options: dict[str, Any] = field(default_factory=dict)


class Outcome(NamedTuple):
    case: int
    kind: str
    """refused, same, different, escaped, hung or crashed."""
    detail: str


ACTIONS = ActionSpec(names=("dx", "grip"), low=(-0.1, 0.0), high=(0.1, 1.0), units=("m", "1"), discrete=(0, 0))
OBSERVATIONS = ObservationSpec(cameras={"wrist": (12, 16, 3)}, proprio_names=("x", "y"), proprio_units=("m", "m"), control_hz=10.0)


def make_ours(folder: Path) -> Path:
    return _written(folder / "demo.hdf5")


def make_lerobot(folder: Path) -> Path:
    return _written(folder / "pictures", format="lerobot")


def make_lerobot_video(folder: Path) -> Path:
    return _written(folder / "video", format="lerobot", images="h264")


def make_bag(folder: Path) -> Path:
    return _bags(folder, "mcap")


def make_sqlite_bag(folder: Path) -> Path:
    return _bags(folder, "sqlite3")


def _written(path: Path, **options: Any) -> Path:
    with create_writer(path, ACTIONS, OBSERVATIONS, {"recipe": "fuzz"}, **options) as writer:
        for seed in range(3):
            writer.append(_episode(5 + seed, seed))
    return path


def _bags(folder: Path, storage: str) -> Path:
    for seed in range(2):
        write_bag(folder / f"bag_{seed}", _episode(5 + seed, seed), ACTIONS, OBSERVATIONS, storage)
    return folder


def make_foreign(folder: Path) -> Path:
    """As robomimic writes: text of variable length, no checksums."""
    with h5py.File(folder / "foreign.hdf5", "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        for seed in range(3):
            episode, demo = _episode(5 + seed, seed), file.create_group(f"data/demo_{seed}")
            demo.attrs["num_samples"] = len(episode)
            demo.attrs["model_file"] = "<mujoco/>"
            demo["actions"], demo["rewards"] = episode.actions.astype(np.float64), episode.rewards
            demo["dones"] = episode.terminated.astype(np.int64)
            for group, rows in {"obs": slice(None, -1), "next_obs": slice(1, None)}.items():
                demo[f"{group}/eef_pos"] = episode.proprio[rows]
                images = episode.images["wrist"][rows]
                demo.create_dataset(f"{group}/wrist_image", data=images, compression="gzip", chunks=(1, *images.shape[1:]))
    return folder / "foreign.hdf5"


def make_minari(folder: Path) -> Path:
    (folder / "data").mkdir()
    box = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-1.0, -1.0], "high": [1.0, 1.0]}
    (folder / "data" / "metadata.json").write_text(json.dumps({"dataset_id": "fuzz/x-v0", "action_space": json.dumps(box)}))
    with h5py.File(folder / "data" / "main_data.hdf5", "w", track_order=True) as file:
        for seed in range(3):
            episode, group = _episode(5 + seed, seed), file.create_group(f"episode_{seed}")
            group.attrs["total_steps"] = len(episode)
            columns = {
                "observations/image": episode.images["wrist"],
                "observations/state": episode.proprio,
                "actions": episode.actions,
                "rewards": episode.rewards,
                "terminations": episode.terminated,
                "truncations": episode.truncated,
            }
            for name, rows in columns.items():
                group.create_dataset(name, data=rows, chunks=True, maxshape=(None, *rows.shape[1:]))
            mission = ["lift it"] * (len(episode) + 1)
            group.create_dataset("observations/mission", data=mission, dtype=h5py.string_dtype(), chunks=True, maxshape=(None,))
    return folder


def _episode(length: int, seed: int) -> Episode:
    return make_episode(length, seed, action_spec=ACTIONS, observation_spec=OBSERVATIONS, instruction="lift it")


SAMPLES = (
    Sample("robomimic, ours", "robomimic", make_ours, checksums=True),
    Sample("robomimic, foreign", "robomimic", make_foreign, checksums=False, options={"dones": "terminated"}),
    Sample("minari", "minari", make_minari, checksums=False, options={"control_hz": 10.0}),
    Sample("lerobot, pictures", "lerobot", make_lerobot, checksums=False),
    Sample("lerobot, video", "lerobot", make_lerobot_video, checksums=False),
    Sample("rosbag, mcap", "rosbag", make_bag, checksums=False, options={"contract": str(CONTRACT)}),
    Sample("rosbag, sqlite3", "rosbag", make_sqlite_bag, checksums=False, options={"contract": str(CONTRACT)}),
)


def fuzz(sample: Sample, cases: Iterable[int], seed: int, folder: Path) -> Iterator[Outcome]:
    """Outcomes of all cases, in their order. Raises AssertionError at one that is not allowed."""
    folder.mkdir(parents=True)
    pristine = folder / "pristine"
    pristine.mkdir()
    place = sample.make(pristine).relative_to(pristine)
    expected = content(pristine / place, sample)
    for outcome in _in_children(sample, deque(cases), seed, folder, place, expected):
        what = f"{sample.name}, seed {seed}, case {outcome.case}: {outcome.kind} {outcome.detail}"
        assert outcome.kind != "escaped", what
        assert outcome.kind != "different" or not sample.checksums, what
        if outcome.kind in ("hung", "crashed"):
            damaged = _damaged(folder / "again", pristine, (seed, zlib.crc32(sample.name.encode()), outcome.case))
            verdict = verify(damaged / place, sample.format, timeout=CPU_SECONDS, **sample.options)
            assert verdict.problems, f"{what}: not contained by verify()"
        yield outcome


def content(path: Path, sample: Sample) -> str:
    """A digest of everything that can be read."""
    source = open_episodes(path, sample.format, **sample.options)
    digest = hashlib.sha256(repr((source.action_spec, source.observation_spec, source.attributes, source.lengths)).encode())
    for episode in source:
        for item in fields(episode):
            digest.update(_bytes(getattr(episode, item.name)))
    return digest.hexdigest()


def _bytes(value: Any) -> bytes:
    if isinstance(value, dict):
        return b"".join(str(key).encode() + _bytes(value[key]) for key in sorted(value))
    return value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()


def _in_children(sample: Sample, cases: deque[int], seed: int, folder: Path, place: Path, expected: str) -> Iterator[Outcome]:
    """One child works through the cases; where it dies, the next one goes on after the case that killed it."""
    context = multiprocessing.get_context("fork")  # a fresh child costs milliseconds, not an import of everything
    while cases:
        ours, theirs = context.Pipe(duplex=False)
        arguments = (sample, list(cases), seed, folder, place, expected, theirs)
        child = context.Process(target=_work, args=arguments, daemon=True)
        child.start()
        theirs.close()
        waiting = True
        with contextlib.suppress(EOFError):  # it died
            while cases and (waiting := ours.poll(WALL_SECONDS)):
                yield Outcome(cases[0], *ours.recv())
                cases.popleft()
        if not waiting:
            child.kill()
        child.join()
        ours.close()
        if cases:
            hung = not waiting or child.exitcode == -signal.SIGPROF
            yield Outcome(cases.popleft(), "hung" if hung else "crashed", f"exit code {child.exitcode}")


def _work(sample: Sample, cases: Sequence[int], seed: int, folder: Path, place: Path, expected: str, results: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for case in cases:
        path = _damaged(folder / "damaged", folder / "pristine", (seed, zlib.crc32(sample.name.encode()), case)) / place
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # unhandled, its signal ends even a loop inside a library
        try:
            results.send(("same", "") if content(path, sample) == expected else ("different", ""))
        except QTransformerError as error:
            results.send(("refused", str(error)))
        except BaseException as error:
            results.send(("escaped", f"{type(error).__name__}: {error}"))


def _damaged(copy: Path, pristine: Path, entropy: tuple[int, ...]) -> Path:
    """A copy of a dataset in which one file is damaged; larger files are likelier."""
    rng = np.random.default_rng(entropy)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(pristine, copy)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    sizes = np.array([path.stat().st_size for path in files], np.float64)
    file = files[int(rng.choice(len(files), p=sizes / sizes.sum()))]
    raw = np.frombuffer(file.read_bytes(), np.uint8).copy()
    kind = entropy[-1] % 4
    if kind == 0:
        raw = raw[: int(rng.integers(len(raw)))]
    elif kind == 1:
        start = int(rng.integers(len(raw))) // 512 * 512
        raw[start : start + 512] = 0
    else:
        near = int(rng.integers(len(raw)))
        places = rng.integers(len(raw), size=8) if kind == 2 else (near + rng.integers(64, size=8)) % len(raw)
        for where in places[: int(rng.integers(1, 9))]:
            raw[where] ^= int(rng.integers(1, 256))
    file.write_bytes(raw.tobytes())
    return copy


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cases", type=int, default=2000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--only", default="", help="samples whose name holds this")
    given = arguments.parse_args()
    samples = [sample for sample in SAMPLES if given.only in sample.name]
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        tqdm(total=given.cases, unit="case", disable=None) as bar,
    ):
        for number, sample in enumerate(samples):
            cases = range(given.cases * number // len(samples), given.cases * (number + 1) // len(samples))
            kinds = Counter[str]()
            for outcome in fuzz(sample, cases, given.seed, Path(folder) / str(number)):
                kinds[outcome.kind] += 1
                if outcome.kind in ("hung", "crashed"):
                    bar.write(f"{sample.name}, case {outcome.case}: {outcome.kind} ({outcome.detail}), contained by verify()")
                bar.update()
            summary = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
            note = "checksums" if sample.checksums else "no checksums in the format"
            bar.write(f"{sample.name:20} {kinds.total()} cases: {summary} ({note})", file=sys.stdout)


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        raise SystemExit(f"NOT ALLOWED  {error}") from None
