"""How fast episodes are written, read and drawn, and what a frame costs on disk.

    python benchmarks/bench_loader.py [frames] [noise]

Frames are flat-coloured, as the simulator's are; `noise` [grey levels] makes them as hard to compress as a camera's.
"""

import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets import EpisodeDataset, HDF5Writer

SIZE, STEPS, BATCHES = 64, 30, 200
ACTION = ActionSpec(names=("dx", "dy"), low=(-1.0,) * 2, high=(1.0,) * 2, units=("m",) * 2, discrete=(0, 0))
OBSERVATION = ObservationSpec(
    cameras={"wrist": (SIZE, SIZE, 3)}, proprio_names=("x",) * 8, proprio_units=("m",) * 8, control_hz=10.0
)


def scene(rng: np.random.Generator, noise: float) -> Episode:
    """Twelve moving rectangles on a plain floor."""
    images = np.full((STEPS + 1, SIZE, SIZE, 3), 200, np.uint8)
    for _ in range(12):
        colour, (x, y, w, h) = rng.integers(0, 256, 3), rng.integers(2, SIZE - 20, 4)
        for t in range(STEPS + 1):
            images[t, y : y + h // 3, (x + t // 3) % SIZE : (x + t // 3) % SIZE + w // 3] = colour
    if noise:
        images = (images + rng.normal(0, noise, images.shape)).clip(0, 255).astype(np.uint8)
    return Episode(
        images={"wrist": images},
        proprio=rng.normal(size=(STEPS + 1, 8)).astype(np.float32),
        actions=rng.uniform(-1, 1, (STEPS, 2)).astype(np.float32),
        rewards=np.zeros(STEPS, np.float32),
        terminated=np.zeros(STEPS, bool),
        truncated=np.arange(STEPS) == STEPS - 1,
    )


def main(frames: int = 40_000, noise: float = 0.0) -> None:
    rng = np.random.default_rng(0)
    pool, count = [scene(rng, noise) for _ in range(20)], frames // (STEPS + 1)
    megabytes = count * (STEPS + 1) * SIZE * SIZE * 3 / 1e6
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.hdf5"
        begin = time.perf_counter()
        with HDF5Writer(path, ACTION, OBSERVATION, {}) as writer:
            for i in range(count):
                writer.append(pool[i % len(pool)])
            written = time.perf_counter()
        finished = time.perf_counter()
        dataset = EpisodeDataset(path)
        loaded = time.perf_counter()
        size = path.stat().st_size
    print(f"frames        {dataset.num_frames} of {SIZE} x {SIZE} x 3, {megabytes:.0f} MB of pixels in {count} episodes")
    print(f"write         {megabytes / (written - begin):.0f} MB/s   {frames / (written - begin):.0f} frames/s")
    print(f"finish        {finished - written:.2f} s")
    print(f"read          {megabytes / (loaded - finished):.0f} MB/s   {loaded - finished:.2f} s")
    print(f"file          {size / 1e6:.1f} MB   {size / dataset.num_frames:.0f} bytes per frame")
    batches = dataset.segments(batch_size=16, lead=3, steps=6, lookahead=1, seed=0)
    next(batches)
    begin = time.perf_counter()
    for _ in islice(batches, BATCHES):
        pass
    print(f"batch         {(time.perf_counter() - begin) / BATCHES * 1e3:.2f} ms for 16 segments of 10 frames")
    begin = time.perf_counter()
    _ = dataset.fingerprint, dataset.stats
    print(f"fingerprint   {time.perf_counter() - begin:.2f} s, statistics included")


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((int, float), sys.argv[1:], strict=False)))
