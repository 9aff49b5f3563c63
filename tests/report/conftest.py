"""A small environment, its actors, and a run directory with everything a page can show."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qtransformer.checkpoint import build_network
from qtransformer.config import Algo, TrainConfig, ValueKind, from_dict, to_dict
from qtransformer.evaluate import EpisodeResult, Evaluation
from qtransformer.intervals import wilson
from qtransformer.policy import Policy
from qtransformer.types import ActionSpec, ObservationSpec
from tests.small_network import SMALL

ACTION_SPEC = ActionSpec(
    names=("dx", "gripper", "dyaw"), low=(-0.1, 0.0, -0.5), high=(0.1, 1.0, 0.5), units=("m", "1", "rad"), discrete=(0, 2, 0)
)
OBSERVATION_SPEC = ObservationSpec(
    cameras={"wrist": (12, 16, 3), "front": (10, 8, 3)}, proprio_names=("x", "y"), proprio_units=("m", "m"), control_hz=5.0
)
STEPS = 6
torch.set_num_threads(1)  # tiny tensors, and other work on the machine


class CountingEnv:
    """Ends after `STEPS` steps: with success for even seeds, at the time limit for odd ones. It has nothing to render."""

    action_spec, observation_spec = ACTION_SPEC, OBSERVATION_SPEC

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.good, self.steps = (seed or 0) % 2 == 0, 0
        self.rng = np.random.default_rng(seed)
        return self.observe(), {"success": False}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        done = self.steps == STEPS
        return (
            self.observe(),
            float(done and self.good),
            done and self.good,
            done and not self.good,
            {"success": done and self.good},
        )

    def observe(self) -> dict[str, Any]:
        cameras = self.observation_spec.cameras.items()
        images = {name: self.rng.integers(0, 256, shape, np.uint8) for name, shape in cameras}
        return {"images": images, "proprio": self.rng.normal(size=2).astype(np.float32), "instruction": "count <to> six"}

    def close(self) -> None: ...


class Still:
    """An actor without values."""

    def reset(self) -> None: ...

    def act(self, observation: Any) -> np.ndarray:
        return np.array([0.05, 1.0, -0.2], np.float32)


@pytest.fixture
def env() -> CountingEnv:
    return CountingEnv()


def make_policy(kind: ValueKind = ValueKind.hl_gauss, algo: Algo = Algo.q) -> Policy:
    config: TrainConfig = from_dict(TrainConfig, SMALL)
    config.value.kind, config.algo = kind, algo
    torch.manual_seed(0)
    stats = {"proprio_mean": [0.0, 0.0], "proprio_std": [1.0, 1.0]}
    network = build_network(config, ACTION_SPEC, OBSERVATION_SPEC, stats).eval()
    return Policy(network, config, ACTION_SPEC, OBSERVATION_SPEC, torch.device("cpu"))


def make_evaluation(successes: int, episodes: int, values: bool = False) -> Evaluation:
    """The first `successes` seeds succeed, in seed + 3 steps; the rest run into a time limit of 20."""
    results = tuple(
        EpisodeResult(
            seed=1000 + i,
            success=i < successes,
            steps=i + 3 if i < successes else 20,
            reward=float(i < successes),
            terminated=i < successes,
            values=(0.31, 0.74) if values else (),
            returns=(float(i < successes),) * 2 if values else (),
        )
        for i in range(episodes)
    )
    return Evaluation(results=results, seconds=1.0)


def write_evaluation(run: Path, name: str, evaluation: Evaluation, label: str) -> None:
    path = run / "evaluations" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**evaluation.to_dict(), "name": name, "label": label}))


def metrics_line(step: int) -> dict[str, float]:
    names = (
        "loss td_loss conservative_loss mc_loss behavior_loss q_start return_start q_data target bootstrap_exceeds_floor "
        "unseen_over_data unseen_excess calibration_error seconds/data seconds/forward seconds/backward seconds/target"
    )
    return {"step": step, **dict.fromkeys(names.split(), 0.5 / step), "samples_per_second": 1234.0}


@pytest.fixture
def full_run(tmp_path: Path) -> Path:
    """A run with every input but videos."""
    run = tmp_path / "a run"
    for folder in (run, run / "baselines" / "bc"):
        folder.mkdir(parents=True)
        lines = [metrics_line(s) for s in range(10, 60, 10)] + [{"step": 50, "validation_success": 0.625}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "config.json").write_text(json.dumps(to_dict(from_dict(TrainConfig, SMALL))))
    write_evaluation(run, "qtransformer", make_evaluation(13, 20, values=True), "Q-Transformer")
    write_evaluation(run, "bc", make_evaluation(7, 20), "Behaviour cloning")
    write_evaluation(run, "expert", make_evaluation(19, 20), "Scripted expert")
    write_evaluation(run, "random", make_evaluation(0, 20), "Random")
    low, high = wilson(261, 900)
    (run / "data.json").write_text(json.dumps({"episodes": 900, "steps": 9000, "success": 0.29, "low": low, "high": high}))
    probs = np.full((4, 21), 1 / 21)
    np.savez(run / "value_distributions.npz", probs=probs, locations=np.linspace(0, 1, 21), values=np.full(4, 0.5))
    return run
