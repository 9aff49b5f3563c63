"""Trainings to be killed, spoilt and compared."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qtransformer.batch import Batch
from qtransformer_datasets import EpisodeDataset


class Killed(BaseException):
    """A process that ends without a word."""


class Spoilt:
    """A dataset whose batches something happens to."""

    def __init__(self, dataset: EpisodeDataset, happen: Callable[[int, Batch], Batch]) -> None:
        self._dataset, self._happen = dataset, happen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def segments(self, *, start: int = 0, **settings: Any) -> Iterator[Batch]:
        batches = self._dataset.segments(start=start, **settings)
        return (self._happen(step, batch) for step, batch in enumerate(batches, start))


def killed_at(dataset: EpisodeDataset, step: int) -> Spoilt:
    def happen(at: int, batch: Batch) -> Batch:
        if at == step:
            raise Killed
        return batch

    return Spoilt(dataset, happen)


def everything(run: Path, step: int = 8) -> dict[str, bytes]:
    """Weights, optimiser and target network of a run's checkpoint."""
    directory = run / "checkpoints" / f"step_{step:07d}"
    names = ("model.safetensors", "training_state/state.safetensors", "golden.npz")
    return {name: (directory / name).read_bytes() for name in names[:2]}


def weights(network: torch.nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in network.state_dict().items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
