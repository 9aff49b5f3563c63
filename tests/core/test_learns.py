"""Learning, kept honest on a low-dimensional twin of grasping.

A gripper sees where an object lies (as proprioception; the tiny image shows nothing), moves in x and y, and closes once: the
grasp holds with a probability that falls from .9 to a lucky .15 with the distance. The log is what a hasty, biased hand leaves:
it aims beside the object, on one side or the other, and closes at any time. Its successes are often luck, and imitating them
inherits the haste; Q-learning must not.

Success of the greedy policy over 2,000 episodes, measured on this machine, data and training from the same seed:

| seed                                             | 0    | 1    | 2    | 3    | 4    |
|--------------------------------------------------|------|------|------|------|------|
| the log                                          | .246 | .251 | .240 | .245 | .268 |
| behaviour cloning of successes                   | .403 | .381 | .369 | .419 | .381 |
| Q-learning, HL-Gauss, behavior_weight 1          | .605 | .616 | .694 | .624 | .665 |
| the same with behavior_weight .1: an idle mask   | .729 | .592 | .639 | .353 | .614 |

The least margin over cloning is .20; the test asks for .12 at seed 0.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from qtransformer.checkpoint import build_network
from qtransformer.config import TrainConfig, from_dict
from qtransformer.learner import QLearner
from qtransformer.models.q_transformer import QTransformer
from qtransformer.preprocess import images_to_float
from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets import EpisodeDataset

SEED = 0
STEPS, REACH = 6, 0.35
ACTION = ActionSpec(("dx", "dy", "close"), (-REACH, -REACH, 0.0), (REACH, REACH, 1.0), ("m", "m", "1"), (0, 0, 2))
OBSERVATION = ObservationSpec({"blank": (8, 8, 3)}, ("x", "y"), ("m", "m"), 5.0)


def start(rng: np.random.Generator, count: int) -> np.ndarray:
    """Where the objects lie, seen from the gripper."""
    return rng.uniform(-0.8, 0.8, (count, 2)).astype(np.float32)


def holds(rng: np.random.Generator, offset: np.ndarray) -> np.ndarray:
    """Whether grasps at these offsets lift the object."""
    return rng.random(len(offset)) < 0.15 + 0.75 * np.exp(-np.square(offset).sum(-1) / 0.25**2)


def hasty_hand(rng: np.random.Generator, offset: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Aims beside the object on its side of it, with noise, and closes at any time. Actions in units."""
    aim = offset + np.stack([0.3 * side, np.zeros_like(side)], -1)
    move = (aim + rng.normal(0, 0.25, aim.shape)).clip(-REACH, REACH)
    close = rng.random(len(offset)) < 0.6
    return np.concatenate([move, close[:, None]], -1)


def collect(episodes: int, seed: int) -> list[Episode]:
    rng = np.random.default_rng(seed)
    offset, side = start(rng, episodes), rng.choice([-1.0, 1.0], episodes)
    log: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(episodes)]
    outcome, running = np.zeros(episodes, bool), np.ones(episodes, bool)
    for t in range(STEPS):
        action = hasty_hand(rng, offset, side)
        action[:, 2] = np.maximum(action[:, 2], t == STEPS - 1)
        for i in np.flatnonzero(running):
            log[i].append((offset[i].copy(), action[i]))
        closes = running & (action[:, 2] > 0.5)
        outcome |= closes & holds(rng, offset)
        running &= ~closes
        offset = offset - np.where(running[:, None], action[:, :2], 0).astype(np.float32)
    return [episode(rows, bool(good)) for rows, good in zip(log, outcome, strict=True)]


def episode(rows: list[tuple[np.ndarray, np.ndarray]], success: bool) -> Episode:
    last = np.arange(len(rows)) == len(rows) - 1
    offsets = np.stack([o for o, _ in rows] + [rows[-1][0]])
    return Episode(
        images={"blank": np.zeros((len(offsets), 8, 8, 3), np.uint8)},
        proprio=offsets,
        actions=ACTION.to_scaled(np.stack([a for _, a in rows])),
        rewards=(last & success).astype(np.float32),
        terminated=last,
        truncated=np.zeros(len(rows), bool),
        success=success,
    )


@dataclass(frozen=True)
class TrainedPolicy:
    network: QTransformer
    config: TrainConfig

    @torch.no_grad()
    def act(self, offset: np.ndarray) -> np.ndarray:
        """Greedy actions for many grippers at once, in units."""
        count, imitate = len(offset), self.config.algo.value == "bc"
        blank = images_to_float(torch.zeros(count, 1, 8, 8, 3, dtype=torch.uint8))
        tokens = self.network.encode_frames({"blank": blank}, torch.from_numpy(offset)[:, None], torch.zeros(count, 1, 64))
        mask = 0.0 if imitate else self.config.targets.behavior_mask
        decision = self.network.greedy(self.network.add_age(tokens), mask, imitate)
        return ACTION.to_units(self.network.tokenizer.decode(decision.bins).numpy())


def learn(dataset: EpisodeDataset, algo: str, seed: int, steps: int, **targets: object) -> TrainedPolicy:
    settings = {
        "algo": algo,
        "seed": seed,
        "steps": steps,
        "model": {"encoder_width": 4, "embed_dim": 64, "num_layers": 2, "num_heads": 2, "ff_dim": 128, "tokens_per_image": 1,
                  "action_bins": 8, "head_dim": 64},
        "targets": targets,
        "optim": {"batch_segments": 32, "segment_steps": 4, "learning_rate": 3e-3,
                  "max_shift": 0, "color_jitter": 0.0, "proprio_noise": 0.0},
    }  # fmt: skip
    config = from_dict(TrainConfig, settings)
    torch.manual_seed(seed)
    stats = {"proprio_mean": dataset.stats.proprio_mean.tolist(), "proprio_std": dataset.stats.proprio_std.tolist()}
    network = build_network(config, ACTION, OBSERVATION, stats)
    learner = QLearner(config, network, torch.device("cpu"))
    batches = dataset.segments(batch_size=32, lead=0, steps=4, lookahead=1, seed=seed, filter="success" if algo == "bc" else "all")
    for step, batch in zip(range(steps), batches, strict=False):
        learner.update(batch, step)
    return TrainedPolicy(network, config)


def success_of(policy: TrainedPolicy, seed: int, episodes: int = 2000) -> float:
    rng = np.random.default_rng([seed, 1])
    offset, running, good = start(rng, episodes), np.ones(episodes, bool), 0
    for t in range(STEPS):
        action = policy.act(offset)
        closes = running & ((action[:, 2] > 0.5) | (t == STEPS - 1))
        good += int((closes & holds(rng, offset)).sum())
        running &= ~closes
        offset = offset - np.where(running[:, None], action[:, :2], 0).astype(np.float32)
    return good / episodes


@pytest.fixture(scope="module")
def log(make_dataset) -> EpisodeDataset:
    return make_dataset(collect(2000, SEED), action_spec=ACTION, observation_spec=OBSERVATION)


def test_q_learning_beats_imitating_the_successes_and_the_log(log: EpisodeDataset) -> None:
    """HL-Gauss, n-step over dimensions, learned floor, behaviour mask: the defaults. For the margins see the table above."""
    cloned = success_of(learn(log, "bc", SEED, 900), SEED)
    learned = success_of(learn(log, "q", SEED, 900, behavior_weight=1.0), SEED)
    logged = log.stats.success_rate
    print(f"success: log {logged:.3f}, cloned {cloned:.3f}, learned {learned:.3f}")
    assert learned > cloned + 0.12
    assert learned > logged + 0.25
