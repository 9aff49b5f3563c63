"""How fast episodes are written, read, cached and drawn; robomimic's loader and a plain copy beside ours, in one run.

    python benchmarks/bench_loader.py [frames=4000] [noise=0] [peer=PYTHON of an environment with robomimic]

Two cameras of 84 x 84, history 2, 128 transitions a batch. A sample is what Q-learning needs of one transition: the window of two
frames before and after the action, as uint8 tensors. Ours come as 16 segments of 8 steps, which share frames, from memory and from
a cache on disk. robomimic's are those of its SequenceDataset with everything cached in memory, through PyTorch's DataLoader, drawn
one by one; as a second figure, without next observations, which is enough for cloning but half of the work. The limit is a copy of
the bytes of one of our batches, from a random place of memory to one that is used again.

Frames are flat-coloured, as the simulator's are; `noise` [grey levels] makes them as hard to compress as a camera's. Both sides
stay loaded and take turns of a fifth of a second; a ratio is that of neighbouring turns, and the median of all rounds counts, so
that other work on the machine disturbs all alike. Samples are counted per second of CPU time, all threads and the operating system
included: everything measured works in memory.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import command_line

ROOT = Path(__file__).parents[1]
PEER_PYTHON = ROOT / ".venv-robomimic" / "bin" / "python"
SIZE, STEPS, CAMERAS = 84, 30, ("wrist", "front")
SEGMENTS, SEGMENT_STEPS, HISTORY = 16, 8, 2
BATCH = SEGMENTS * SEGMENT_STEPS
ROUNDS, SECONDS = 20, 0.2
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
"""Tells glibc to keep what is freed. Left alone, in some processes but not in others, it hands the memory of robomimic's batches
back to the system and fetches it anew for each (5,300 page faults a batch), which halves robomimic's speed."""
Work = Callable[[], Any]
"""Makes one batch."""


def rate(work: Work, seconds: float = SECONDS) -> float:
    """Calls per second of CPU time, all threads counted, after a warm-up."""
    for _ in range(20):
        work()
    calls, begin = 0, time.process_time()
    while (passed := time.process_time() - begin) < seconds:
        work()
        calls += 1
    return calls / passed


def write(path: Path, frames: int, noise: float) -> None:
    """Episodes of twelve moving rectangles on a plain floor; prints how fast they are written."""
    import numpy as np

    from qtransformer.types import ActionSpec, Episode, ObservationSpec
    from qtransformer_datasets import HDF5Writer

    rng = np.random.default_rng(0)

    def images() -> Any:
        rows = np.full((STEPS + 1, SIZE, SIZE, 3), 200, np.uint8)
        for _ in range(12):
            colour, (x, y, w, h) = rng.integers(0, 256, 3), rng.integers(2, SIZE - 20, 4)
            for t in range(STEPS + 1):
                rows[t, y : y + h // 3, (x + t // 3) % SIZE : (x + t // 3) % SIZE + w // 3] = colour
        return (rows + rng.normal(0, noise, rows.shape)).clip(0, 255).astype(np.uint8) if noise else rows

    action = ActionSpec(names=("dx", "dy"), low=(-1.0,) * 2, high=(1.0,) * 2, units=("m",) * 2, discrete=(0, 0))
    cameras = dict.fromkeys(CAMERAS, (SIZE, SIZE, 3))
    observation = ObservationSpec(cameras=cameras, proprio_names=("x",) * 8, proprio_units=("m",) * 8, control_hz=10.0)
    pool = [
        Episode(
            images={camera: images() for camera in CAMERAS},
            proprio=rng.normal(size=(STEPS + 1, 8)).astype(np.float32),
            actions=rng.uniform(-1, 1, (STEPS, 2)).astype(np.float32),
            rewards=np.zeros(STEPS, np.float32),
            terminated=np.zeros(STEPS, bool),
            truncated=np.arange(STEPS) == STEPS - 1,
        )
        for _ in range(20)
    ]
    episodes = max(1, frames // (STEPS + 1))
    megabytes = episodes * (STEPS + 1) * SIZE * SIZE * 3 * len(CAMERAS) / 1e6
    begin = time.perf_counter()
    with HDF5Writer(path, action, observation, {}) as writer:
        for i in range(episodes):
            writer.append(pool[i % len(pool)])
    passed = time.perf_counter() - begin
    print(f"{episodes * (STEPS + 1)} frames, {megabytes:.0f} MB of pixels, {path.stat().st_size / 1e6:.1f} MB as HDF5")
    print(f"write             {megabytes / passed:8.0f} MB/s")


def with_next_obs(path: Path) -> Path:
    """The file as robomimic wants it for Q-learning: with the next observation of every step."""
    import h5py
    import numpy as np

    full = path.with_name("robomimic.hdf5")
    with h5py.File(path) as source, h5py.File(full, "w") as file:
        source.copy("data", file)
        for demo in file["data"].values():  # pyright: ignore[reportAttributeAccessIssue]
            for key, rows in demo["obs"].items():
                last = demo[f"next_obs/{key}"][-1:]
                del demo[f"next_obs/{key}"]
                demo[f"next_obs/{key}"] = np.concatenate([rows[1:], last])
    return full


def prepare(path: Path) -> None:
    """Read into memory, build the cache, open it; prints how long each took."""
    from qtransformer_datasets import EpisodeDataset

    for name, cache in [("read into memory", "never"), ("build the cache", "always"), ("open the cache", "always")]:
        begin = time.perf_counter()
        dataset = EpisodeDataset(path, cache=cache)
        passed = time.perf_counter() - begin
        megabytes = dataset.num_frames * SIZE * SIZE * 3 * len(CAMERAS) / 1e6
        print(f"{name:16}  {megabytes / passed:8.0f} MB/s {passed:8.3f} s")
    begin = time.perf_counter()
    _ = dataset.fingerprint, dataset.stats
    print(f"its fingerprint and statistics {time.perf_counter() - begin:8.3f} s")


def our_work(path: Path) -> dict[str, Work]:
    """Batches from memory, from the cache, and the plain copy."""
    import numpy as np
    import torch

    from qtransformer_datasets import EpisodeDataset

    torch.set_num_threads(1)
    work, size = dict[str, Work](), 0
    shape: Any = {"batch_size": SEGMENTS, "lead": HISTORY - 1, "steps": SEGMENT_STEPS, "lookahead": 1, "seed": 0}
    for name, cache in [("memory", "never"), ("cache", "always")]:
        batches = EpisodeDataset(path, cache=cache).segments(**shape)
        size = sum(images.numel() for images in next(batches).images.values())
        work[name] = lambda batches=batches: next(batches)
    source = np.ones(max(2 * size, 250_000_000), np.uint8)
    place, rng = np.empty(size, np.uint8), np.random.default_rng(0)

    def copy() -> None:
        begin = int(rng.integers(len(source) - size))
        np.copyto(place, source[begin : begin + size])

    return work | {"copy": copy}


def their_work(path: Path) -> dict[str, Work]:
    """Batches of robomimic; runs in its own environment."""
    import robomimic.utils.obs_utils as obs_utils  # pyright: ignore[reportMissingImports]
    import torch
    from robomimic.utils.dataset import SequenceDataset  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    images = [f"{camera}_image" for camera in CAMERAS]
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"rgb": images, "low_dim": ["proprio"]}})
    work = dict[str, Work]()
    for name, next_obs in [("robomimic", True), ("robomimic, cloning", False)]:
        dataset = SequenceDataset(
            hdf5_path=str(path),
            obs_keys=[*images, "proprio"],
            dataset_keys=["actions", "rewards", "dones"],
            frame_stack=HISTORY,
            hdf5_cache_mode="all",
            hdf5_use_swmr=False,
            load_next_obs=next_obs,
        )
        loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True)
        batches = itertools.chain.from_iterable(itertools.repeat(loader))
        assert next(batches)["obs"][images[0]].shape[:2] == (BATCH, HISTORY)
        work[name] = lambda batches=batches: next(batches)
    return work


class Side:
    """A process that has its data loaded and measures when it is asked to."""

    def __init__(self, name: str, python: str, path: Path) -> None:
        command = [python, __file__, "--side", name, str(path)]
        pipe, environment = subprocess.PIPE, os.environ | KEEP_MEMORY
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment)
        self.names: list[str] = self._answer()

    def samples(self, name: str) -> float:
        """Samples per second of CPU time in one turn."""
        assert self._process.stdin is not None
        print(name, file=self._process.stdin, flush=True)
        return BATCH * self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def serve(name: str, path: Path) -> None:
    """The other end of a `Side`."""
    answers, sys.stdout = sys.stdout, sys.stderr  # robomimic prints
    work = {"ours": our_work, "theirs": their_work}[name](path)
    print(json.dumps(list(work)), file=answers, flush=True)
    for line in sys.stdin:
        print(rate(work[line.rstrip("\n")]), file=answers, flush=True)


def measure(commands: Sequence[tuple[str, str, Path]]) -> dict[str, list[float]]:
    """Samples per second of every piece of work in every round."""
    with ExitStack() as stack:
        sides = [stack.enter_context(Side(*command)) for command in commands]
        turns = [(side, name) for side in sides for name in side.names]
        rounds = [[side.samples(name) for side, name in turns] for _ in range(ROUNDS)]
    return {name: list(rates) for (_, name), rates in zip(turns, zip(*rounds, strict=True), strict=True)}


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Median and quartiles over the rounds: [middle, low, high]."""
    found = [a / b for a, b in zip(above, below, strict=True)]
    low, _, high = quantiles(found, n=4)
    return [median(found), low, high]


def report(rates: dict[str, list[float]]) -> bool:
    """Print medians and ratios; whether the targets are met."""
    print(f"{f'median of {ROUNDS} rounds':22}{'samples/s':>12}{'of the copy':>14}")
    for name, values in rates.items():
        print(f"{name:22}{median(values):>12.0f}{ratios(values, rates['copy'])[0]:>13.2f}x")
    met = all(ratios(rates[ours], rates["copy"])[0] >= 0.5 for ours in ("memory", "cache"))
    for ours, theirs in itertools.product(("memory", "cache"), [name for name in rates if "robomimic" in name]):
        middle, low, high = ratios(rates[ours], rates[theirs])
        print(f"{ours:8}{middle:5.1f}x {theirs} (quartiles {low:.1f} to {high:.1f})")
        met = met and (middle >= 10 or theirs != "robomimic")
    print(f"target (half of the copy, 10x robomimic with next frames): {'met' if met else 'MISSED'}")
    return met


def main(frames: int = 4_000, noise: float = 0.0, peer: str = str(PEER_PYTHON)) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.hdf5"
        write(path, frames, noise)
        prepare(path)
        commands = [("ours", sys.executable, path)]
        if Path(peer).exists():
            commands.append(("theirs", peer, with_next_obs(path)))
        else:
            print(f"robomimic is left out: there is no {peer}; `make peers` installs it", file=sys.stderr)
        rates = measure(commands)
    return 0 if report(rates) else 1


if __name__ == "__main__":
    if "--side" in sys.argv:
        serve(sys.argv[2], Path(sys.argv[3]))
        sys.exit()
    sys.exit(command_line.run(main))
