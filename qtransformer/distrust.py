"""What is asked of a checkpoint's files before anything that they say is built: they may come from anybody.

A manifest tells that files are as they were written, not who wrote them. So nothing of a size that a file claims is allocated
before the weights are known to have it, and whatever a value makes PyTorch or a parser raise is a `CheckpointError`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from qtransformer import normalisation
from qtransformer.config import TrainConfig
from qtransformer.errors import CheckpointError, QTransformerError
from qtransformer.types import ActionSpec, ObservationSpec

MOST_PARTS = 1000
"""Transformer blocks, cameras or action dimensions up to which they may be meant: each is built, or decided, on its own."""
GOLDEN_BYTES = 2**27
"""Of an unpacked golden sample, which is one observation and its values: a few images."""


@contextmanager
def distrusted(directory: Path, files: str) -> Iterator[None]:
    """A block that makes something of `files`."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # what nobody meant makes parsers and PyTorch raise anything
        found = str(error) if isinstance(error, (QTransformerError, ValueError)) else repr(error)
        raise CheckpointError(
            f"{directory}: {files} is not what this version of qtransformer writes: {found}; copy the checkpoint again, or use the "
            "version in its metadata.json"
        ) from error


def plausible_specs(spec: Any) -> tuple[ActionSpec, ObservationSpec]:
    """The specs of a `spec.json`; raises where they are none."""
    action, observation = ActionSpec.from_dict(spec["action"]), ObservationSpec.from_dict(spec["observation"])
    if not 0 < observation.control_hz < math.inf:
        raise ValueError(f"spec.json: expected a finite control_hz above 0, found {observation.control_hz}")
    if len(observation.proprio_names) != len(observation.proprio_units):
        raise ValueError(f"spec.json: expected a unit for each of proprio_names, found {observation.proprio_units}")
    for camera, shape in observation.cameras.items():
        if min(shape) < 1 or shape[2] != 3:
            raise ValueError(f"spec.json: expected images (h, w, 3) of camera '{camera}', found {shape}")
    return action, observation


def refuse_strange_statistics(stats: Mapping[str, Any], observation: ObservationSpec) -> None:
    expected = (len(observation.proprio_names),)
    for key in normalisation.KEYS:
        values = np.asarray(stats[key], np.float64)
        if values.shape != expected or not np.isfinite(values).all():
            raise ValueError(f"stats.json: expected {expected[0]} finite numbers as {key}, found {stats[key]}")
    if not math.isfinite(reward_on_the_way(stats)):
        raise ValueError(f"stats.json: expected a finite going_on_reward_max, found {reward_on_the_way(stats)}")


def reward_on_the_way(stats: Mapping[str, Any]) -> float:
    """The highest reward before an episode ends; 0 where early checkpoints do not say."""
    return float(stats.get("going_on_reward_max", 0.0))


def refuse_too_many_parts(config: TrainConfig, action: ActionSpec, observation: ObservationSpec) -> None:
    counts = {"model.num_layers": config.model.num_layers, "action dimensions": len(action), "cameras": len(observation.cameras)}
    for name, count in counts.items():
        if count > MOST_PARTS:
            raise ValueError(f"expected at most {MOST_PARTS} {name}, found {count}")


def refuse_other_weights(directory: Path, build: Callable[[], nn.Module]) -> None:
    """Compare the network that `build` makes with the weights' names and shapes, without memory for either."""
    with distrusted(directory, "model.safetensors"), safe_open(directory / "model.safetensors", framework="pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # it is no dictionary
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}
    differing = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if differing:
        first = differing[0]
        raise CheckpointError(
            f"{directory}/model.safetensors does not fit its config.json and spec.json: {first} is expected as "
            f"{expected.get(first)}, found {found.get(first)}, and {len(differing) - 1} more differ; copy the whole directory again"
        )


def read_golden(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a golden sample, unless they would unpack to more than one has."""
    with ZipFile(path) as file:
        size = sum(entry.file_size for entry in file.infolist())
    if size > GOLDEN_BYTES:
        raise CheckpointError(f"{path}: expected at most {GOLDEN_BYTES} bytes when unpacked, found {size}; copy it again")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
