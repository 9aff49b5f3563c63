"""A small robot, its data and its network."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qtransformer import Trainer
from qtransformer.batch import Batch
from qtransformer.checkpoint import build_network
from qtransformer.config import TrainConfig, from_dict
from qtransformer.learner import QLearner
from qtransformer.models.q_transformer import QTransformer
from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets import EpisodeDataset
from tests.small_network import SMALL

ACTION_SPEC = ActionSpec(
    names=("dx", "gripper", "dy"), low=(-0.1, 0.0, -0.2), high=(0.1, 1.0, 0.3), units=("m", "1", "m"), discrete=(0, 2, 0)
)
OBSERVATION_SPEC = ObservationSpec(
    cameras={"wrist": (20, 24, 3), "front": (24, 16, 3)}, proprio_names=("x", "y"), proprio_units=("m", "m"), control_hz=5.0
)
TRAINED: dict[str, Any] = SMALL | {
    "steps": 8,
    "log_every": 2,
    "save_every": 4,
    "optim": {"batch_segments": 3, "segment_steps": 4, "warmup_steps": 2, "max_shift": 1, "precision": "float32"},
}
STATS = {"proprio_mean": [0.1, -0.2], "proprio_std": [0.9, 1.1]}
torch.set_num_threads(1)  # tiny tensors, and other work on the machine


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    nested = {k: _merged(base.get(k, {}), v) for k, v in changes.items() if isinstance(v, Mapping)}
    return {**base, **changes, **nested}


def _make_config(**changes: Any) -> TrainConfig:
    """The small configuration with some settings changed: `make_config(algo="mc", model={"history": 6})`."""
    return from_dict(TrainConfig, _merged(TRAINED, changes))


def _make_network(config: TrainConfig, seed: int = 0) -> QTransformer:
    """A network that is decided: what it sees and did moves its values and choices by far more than rounding."""
    torch.manual_seed(seed)
    network = build_network(config, ACTION_SPEC, OBSERVATION_SPEC, STATS)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
        for head in (network.q_head, network.mc_head, network.policy_head):
            head.out.weight.normal_()
    return network.eval()


def _pictures(rng: np.random.Generator, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """A noisy colour of its own for every frame."""
    return (rng.integers(0, 200, (count, 1, 1, 3)) + rng.integers(0, 56, (count, *shape))).astype(np.uint8)


def _make_episode(length: int = 5, seed: int = 0, *, end: str = "terminated", **changes: Any) -> Episode:
    """A random episode whose reward of 1 at its last step is its success."""
    rng = np.random.default_rng(seed)
    last = np.arange(length) == length - 1
    success = bool(changes.pop("success", seed % 2 == 0))
    fields: dict[str, Any] = {
        "images": {c: _pictures(rng, length + 1, s) for c, s in OBSERVATION_SPEC.cameras.items()},
        "proprio": rng.normal(size=(length + 1, 2)).astype(np.float32),
        "actions": np.stack([rng.uniform(-1, 1, length), rng.choice([-1.0, 1.0], length), rng.uniform(-1, 1, length)], -1).astype(
            np.float32
        ),
        "rewards": (last & success).astype(np.float32),
        "terminated": last & (end == "terminated"),
        "truncated": last & (end == "truncated"),
        "instruction": "pick up the red cube" if seed % 3 else "push the ball",
        "success": success,
        "info": {"seed": seed},
    }
    return Episode(**(fields | changes))


class _Source:
    """Episodes in memory, as an `EpisodeSource`."""

    def __init__(self, episodes: list[Episode], action_spec: ActionSpec, observation_spec: ObservationSpec) -> None:
        self.action_spec, self.observation_spec, self._episodes = action_spec, observation_spec, episodes

    def __len__(self) -> int:
        return len(self._episodes)

    def __iter__(self) -> Iterator[Episode]:
        return iter(self._episodes)


def _make_dataset(
    episodes: list[Episode] | None = None,
    discount: float = 0.98,
    action_spec: ActionSpec = ACTION_SPEC,
    observation_spec: ObservationSpec = OBSERVATION_SPEC,
) -> EpisodeDataset:
    """Episodes in memory: by default twelve, of 3 to 6 steps, ending in every way."""
    if episodes is None:
        episodes = [_make_episode(3 + i % 4, i, end=("terminated", "truncated")[i // 2 % 2]) for i in range(12)]
    return EpisodeDataset(_Source(episodes, action_spec, observation_spec), discount)


def _make_batch(lead: int = 0, steps: int = 4, lookahead: int = 1, size: int = 3, start: int = 0) -> Batch:
    return next(_make_dataset().segments(batch_size=size, lead=lead, steps=steps, lookahead=lookahead, seed=0, start=start))


@pytest.fixture(scope="session")
def action_spec() -> ActionSpec:
    return ACTION_SPEC


@pytest.fixture(scope="session")
def observation_spec() -> ObservationSpec:
    return OBSERVATION_SPEC


@pytest.fixture(scope="session")
def make_config() -> Callable[..., TrainConfig]:
    return _make_config


@pytest.fixture(scope="session")
def make_network() -> Callable[..., QTransformer]:
    return _make_network


@pytest.fixture
def make_learner() -> Callable[[TrainConfig], QLearner]:
    return lambda config: QLearner(config, _make_network(config), torch.device("cpu"))


@pytest.fixture(scope="session")
def make_episode() -> Callable[..., Episode]:
    return _make_episode


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., EpisodeDataset]:
    return _make_dataset


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    return _make_batch


@pytest.fixture(scope="session")
def observe() -> Callable[[Episode, int], dict[str, Any]]:
    """What the robot saw at a step of an episode."""

    def at(episode: Episode, t: int) -> dict[str, Any]:
        images = {camera: rows[t] for camera, rows in episode.images.items()}
        return {"images": images, "proprio": episode.proprio[t], "instruction": episode.instruction}

    return at


@pytest.fixture(scope="module")
def dataset(make_dataset) -> EpisodeDataset:
    return make_dataset()


@pytest.fixture
def fit(dataset, tmp_path: Path) -> Callable[..., Path]:
    """Train into a directory of a name; returns it."""

    def run(config: TrainConfig, name: str = "run", *, data: Any = None, resume: bool = False, **settings: Any) -> Path:
        Trainer(config, data or dataset, tmp_path / name, progress=False, **settings).fit(resume=resume)
        return tmp_path / name

    return run
