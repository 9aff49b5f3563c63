"""The artefact: a directory that explains itself and carries no pickle.

step_0002000/
  model.safetensors   weights                    config.json   rebuilds the network without Hydra
  spec.json           cameras, shapes, control_hz, action names/units/limits/order
  stats.json          normalisation              golden.npz    one observation and the Q-values and action it must give
  metadata.json       step, dataset fingerprint, versions      manifest.json   file -> size, sha256
  training_state/     optimiser, target network, position; delete it and the policy still runs
"""

import json
import platform
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import qtransformer
from qtransformer.action_tokenizer import ActionTokenizer
from qtransformer.config import TrainConfig, from_dict, to_dict
from qtransformer.distrust import (
    distrusted,
    plausible_specs,
    read_golden,
    refuse_other_weights,
    refuse_strange_statistics,
    refuse_too_many_parts,
)
from qtransformer.errors import CheckpointError
from qtransformer.files import published_directory, verify_manifest, write_json, write_manifest
from qtransformer.models.q_transformer import QTransformer
from qtransformer.types import ActionSpec, ObservationSpec
from qtransformer.value_heads import make_value_head
from qtransformer.value_heads.support import initial_value

FILES = ("config.json", "golden.npz", "metadata.json", "model.safetensors", "spec.json", "stats.json")
"""Of a checkpoint."""
STATE_FILES = ("position.json", "state.safetensors")
"""Of its training_state."""


@dataclass(kw_only=True, slots=True)
class Artefact:
    """Everything a policy is made of."""

    config: TrainConfig
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    stats: dict[str, Any]
    """JSON-able statistics of the training data; `proprio_mean` and `proprio_std` normalise the network's input."""
    network: QTransformer
    metadata: dict[str, Any] = field(default_factory=dict)
    golden: dict[str, np.ndarray] = field(default_factory=dict)
    """Arrays of the golden sample; see `policy.golden_sample`."""


def build_network(
    config: TrainConfig, action_spec: ActionSpec, observation_spec: ObservationSpec, stats: Mapping[str, Any]
) -> QTransformer:
    """A fresh network for a configuration and the specs of its data."""
    head = make_value_head(config.value)
    return QTransformer(
        config.model,
        head,
        ActionTokenizer.from_spec(action_spec, config.model.action_bins),
        observation_spec,
        torch.tensor(stats["proprio_mean"], dtype=torch.float32),
        torch.tensor(stats["proprio_std"], dtype=torch.float32),
        initial_value(config.value, head),
    ).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def write_checkpoint(
    root: Path, step: int, artefact: Artefact, training_state: Mapping[str, Tensor], position: Mapping[str, Any]
) -> Path:
    """Publish `root/step_<step>` and point `latest.json` at it, for people and scripts.

    Args:
        root: the run's `checkpoints` directory.
        step: gradient steps taken.
        artefact: the policy.
        training_state: tensors training needs to go on.
        position: numbers training needs to go on.
    """
    destination = root / f"step_{step:07d}"
    with published_directory(destination) as directory:
        save_file(_contiguous(artefact.network.state_dict()), directory / "model.safetensors")
        (directory / "config.json").write_text(json.dumps(to_dict(artefact.config), indent=1))
        spec = {"action": artefact.action_spec.to_dict(), "observation": artefact.observation_spec.to_dict()}
        (directory / "spec.json").write_text(json.dumps(spec, indent=1))
        (directory / "stats.json").write_text(json.dumps(artefact.stats, indent=1))
        np.savez(directory / "golden.npz", **artefact.golden)  # pyright: ignore[reportArgumentType]
        (directory / "metadata.json").write_text(json.dumps({"step": step, **versions(), **artefact.metadata}, indent=1))
        state = directory / "training_state"
        state.mkdir()
        save_file(_contiguous(training_state), state / "state.safetensors")
        (state / "position.json").write_text(json.dumps(position))
        write_manifest(state)
        write_manifest(directory)
    set_latest(destination)
    return destination


def set_latest(checkpoint: Path) -> None:
    """Point the run's `latest.json` at a checkpoint."""
    write_json(checkpoint.parent / "latest.json", {"step": checkpoint.name})


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def read_checkpoint(path: str | Path, device: torch.device) -> Artefact:
    """Verify the manifest, rebuild the network and load its weights strictly.

    Raises:
        CheckpointError: missing, incomplete, damaged, or made for another network.
    """
    directory = resolve_checkpoint(path)
    verify_manifest(directory, FILES)
    config = read_json(directory / "config.json")
    spec, stats, metadata = (read_json(directory / f"{name}.json") for name in ("spec", "stats", "metadata"))
    with distrusted(directory, "config.json, spec.json, stats.json, metadata.json or golden.npz"):
        config = from_dict(TrainConfig, config, f"{directory}/config.json")
        action_spec, observation_spec = plausible_specs(spec)
        refuse_strange_statistics(stats, observation_spec)
        refuse_too_many_parts(config, action_spec, observation_spec)
        metadata = {**metadata}  # raises where it is no object
        golden = read_golden(directory / "golden.npz")
        build = partial(build_network, config, action_spec, observation_spec, stats)
        refuse_other_weights(directory, build)
        network = build()
    load_weights(network, directory)
    return Artefact(
        config=config,
        action_spec=action_spec,
        observation_spec=observation_spec,
        stats=stats,
        network=network.to(device).eval(),
        metadata=metadata,
        golden=golden,
    )


def load_weights(network: QTransformer, directory: Path) -> None:
    """Load a checkpoint's weights, all of them and nothing else."""
    try:
        network.load_state_dict(load_file(directory / "model.safetensors"), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{directory}/model.safetensors does not fit its config.json: {error}") from error


def read_training_state(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and numbers with which training goes on."""
    state = directory / "training_state"
    if not state.is_dir():
        raise CheckpointError(f"{directory} has no training_state: it can act but not resume; start anew with init={directory}")
    verify_manifest(state, STATE_FILES)
    with distrusted(state, "state.safetensors"):
        return load_file(state / "state.safetensors"), read_json(state / "position.json")


def resolve_checkpoint(path: str | Path) -> Path:
    """A checkpoint directory from itself, or from a run directory (its best, else its newest complete one)."""
    path = Path(path)
    if (path / "model.safetensors").exists():
        return path
    root = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    best, complete = _pointed(root, "best.json"), complete_checkpoints(root)
    if not complete:
        raise CheckpointError(f"no checkpoint in {path}: expected a run directory with checkpoints/step_*, or a checkpoint")
    return best or complete[-1]


def complete_checkpoints(root: Path) -> list[Path]:
    """Published checkpoints of a run, oldest first."""
    steps = {p: p.name.removeprefix("step_") for p in root.glob("step_*") if (p / "manifest.json").exists()}
    return sorted((p for p, step in steps.items() if step.isdecimal()), key=lambda p: int(steps[p]))


def latest_resumable(run: Path) -> Path | None:
    """The newest checkpoint whose manifests hold; damaged ones are passed over with a warning. None before the first one.

    Raises:
        CheckpointError: there are checkpoints, and training can go on from none of them.
    """
    complete = complete_checkpoints(run / "checkpoints")
    for directory in reversed(complete):
        try:
            verify_manifest(directory, FILES)
            verify_manifest(directory / "training_state", STATE_FILES)
            return directory
        except CheckpointError as error:
            warnings.warn(f"{error}; falling back to the checkpoint before it", stacklevel=2)
    if complete:  # to start again at step 0 would write over them
        raise CheckpointError(
            f"{run}: expected a checkpoint that training can go on from, found {len(complete)} whose training_state or weights are "
            f"missing or damaged; restore one, or train with init={complete[-1]} and another run=..."
        )
    return None


def prune_checkpoints(root: Path, keep: int, newest: Path) -> None:
    """Delete all but the last `keep` checkpoints up to `newest`, which was just written, and the best one; 0 keeps all. A failed
    deletion only warns.

    Checkpoints of later steps were passed over as damaged when training resumed: they stay, and none is given up for them.
    """
    best, complete = _pointed(root, "best.json"), complete_checkpoints(root)
    for directory in complete[: complete.index(newest) + 1][:-keep] if keep else []:
        if directory == best:
            continue
        try:
            shutil.rmtree(directory)
        except OSError as error:
            warnings.warn(f"could not delete the old checkpoint {directory}: {error}", stacklevel=2)


def remove_unfinished(root: Path) -> None:
    """Delete what saves left that were killed. The caller alone writes there."""
    for directory in root.glob("step_*.tmp-*"):
        shutil.rmtree(directory, ignore_errors=True)


def set_best(root: Path, checkpoint: Path, **scores: float) -> None:
    """Point `best.json` at a checkpoint."""
    write_json(root / "best.json", {"step": checkpoint.name, **scores})


def best_scores(root: Path) -> dict[str, Any]:
    """What `best.json` says: the checkpoint's name, and the scores that chose it. Empty where it is missing or damaged."""
    return _pointer(root / "best.json")


def versions() -> dict[str, str]:
    """What a checkpoint was made with."""
    return {"qtransformer": qtransformer.__version__, "torch": torch.__version__, "python": platform.python_version()}


def _pointed(root: Path, pointer: str) -> Path | None:
    name = _pointer(root / pointer).get("step")
    return next((directory for directory in complete_checkpoints(root) if directory.name == name), None)


def _pointer(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def read_json(path: Path) -> Any:
    """A file of a checkpoint.

    Raises:
        CheckpointError: it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
