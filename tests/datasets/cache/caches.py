"""What a cache must equal, and where it lies."""

import multiprocessing
from collections.abc import Callable
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qtransformer.batch import Batch
from qtransformer_datasets import EpisodeDataset
from qtransformer_datasets.stream.frames import array_fields

SHAPE = {"batch_size": 3, "lead": 1, "steps": 3, "lookahead": 1, "seed": 4}


def in_child(work: Callable[[], Any], wait: bool = True) -> Any:
    """Run in a forked process; its exit code, or the process itself."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    if not wait:
        return process
    process.join(60)
    return process.exitcode


def folder_of(path: Path) -> Path:
    [manifest] = path.parent.glob(f"{path.name}.cache/*/manifest.json")
    return manifest.parent


def same_batch(a: Batch, b: Batch) -> None:
    for field in fields(Batch):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, dict):
            assert left.keys() == right.keys()
            assert all(torch.equal(left[camera], right[camera]) for camera in left)
        else:
            assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right, field.name


def same_data(found: EpisodeDataset, expected: EpisodeDataset, assert_same_episode: Callable) -> None:
    for (name, a), (_, b) in zip(array_fields(found.frames()), array_fields(expected.frames()), strict=True):
        assert a.dtype == b.dtype, name
        assert a.tobytes() == b.tobytes(), name
    assert found.frames().instructions == expected.frames().instructions
    assert found.fingerprint == expected.fingerprint
    for a, b in zip(found, expected, strict=True):
        assert_same_episode(a, b)
        assert a.images["wrist"].flags.writeable
        assert a.proprio.flags.writeable
        assert (a.timestamps is None) == (b.timestamps is None)
        assert a.timestamps is None or np.array_equal(a.timestamps, b.timestamps)
    settings = [{}, {"balance": "success"}, {"filter": "success"}, {"balance": "instruction", "rank": 1, "world_size": 3}]
    for more in settings:
        batches = zip(found.segments(**SHAPE, **more), expected.segments(**SHAPE, **more), strict=True)
        for a, b in islice(batches, 12):
            same_batch(a, b)


def is_mapped(dataset: EpisodeDataset) -> bool:
    return dataset.frames().images["wrist"].mapped
