"""Where a gradient step's time goes, and what greedy actions cost: the default network and one with 256 bins.

    .venv/bin/python benchmarks/bench_step.py [threads=1] [steps=15]

`data` is augmentation and tokenising of a batch that is in memory already; reading it is `bench_loader.py`'s.
"""

import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import command_line
from qtransformer import Policy
from qtransformer.batch import Batch
from qtransformer.checkpoint import build_network
from qtransformer.config import TrainConfig, from_dict
from qtransformer.learner import QLearner
from qtransformer.memory import MEMORIES
from qtransformer.types import ActionSpec, ObservationSpec

SIZE, DIMS = 64, 6
ACTION = ActionSpec(tuple("abcdef"), (-1.0,) * DIMS, (1.0,) * DIMS, ("m",) * DIMS, (0, 0, 0, 0, 2, 2))
OBSERVATION = ObservationSpec({"wrist": (SIZE, SIZE, 3)}, (*"uvwxy", "gripper_closed"), ("m",) * 6, 10.0)
STATS = {"proprio_mean": [0.0] * 6, "proprio_std": [1.0] * 6}
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "default, MSE": {"value": {"kind": "mse"}},
    "default, algo mc": {"algo": "mc"},
    "default, algo bc": {"algo": "bc"},
    "default, per-dimension backup": {"targets": {"backup": "bellman"}},
    "default, history 4": {"model": {"history": 4}},
    "default, memory": {"model": {"remember": "gripper_closed"}},
    "256 bins": {"model": {"action_bins": 256}},
}
PARTS = ("data", "forward", "target", "backward")


def random_batch(config: TrainConfig) -> Batch:
    lead, steps = config.model.history - 1, config.optim.segment_steps
    shape = (config.optim.batch_segments, lead + steps + config.targets.time_steps)
    no = torch.zeros(shape, dtype=torch.bool)
    return Batch(
        lead=lead,
        steps=steps,
        images={"wrist": torch.randint(0, 256, (*shape, SIZE, SIZE, 3), dtype=torch.uint8)},
        proprio=torch.randn(*shape, 6),
        remembered=torch.randn(*shape, MEMORIES, 6),
        instruction=torch.randn(*shape, 64) / 8,
        episode_start=torch.zeros(shape, dtype=torch.long),
        has_action=~no,
        actions=torch.rand(*shape, DIMS) * 2 - 1,
        rewards=torch.rand(shape).round(),
        terminated=torch.rand(shape) < 0.1,
        truncated=no,
        lost_final=no,
        mc_return=torch.rand(shape),
        success=no,
    )


def milliseconds(calls: Iterator[Any]) -> float:
    begin = time.perf_counter()
    count = sum(1 for _ in calls)
    return 1e3 * (time.perf_counter() - begin) / count


def main(threads: int = 1, steps: int = 15) -> None:
    torch.set_num_threads(threads)
    print(f"{threads} thread(s), 128 transitions a batch, {SIZE} x {SIZE}, one camera, {DIMS} dimensions; milliseconds a step")
    print(f"{'':32}{'parameters':>11}{''.join(f'{p:>10}' for p in PARTS)}{'step':>9}{'samples/s':>11}{'ms/action':>11}")
    for name, settings in CASES.items():
        config = from_dict(TrainConfig, settings)
        torch.manual_seed(0)
        network = build_network(config, ACTION, OBSERVATION, STATS)
        learner, batch = QLearner(config, network, torch.device("cpu")), random_batch(config)
        learner.update(batch, 0)
        took: list[dict[str, float]] = []
        step = milliseconds(took.append(learner.update(batch, i).seconds) for i in range(steps))  # pyright: ignore[reportArgumentType]
        policy = Policy(network, config, ACTION, OBSERVATION, torch.device("cpu"))
        seen = {"images": {"wrist": np.zeros((SIZE, SIZE, 3), np.uint8)}, "proprio": np.zeros(6, np.float32)}
        policy.act(seen)
        action = milliseconds(policy.act(seen) for _ in range(5 * steps))
        parts = "".join(f"{1e3 * float(np.median([t.get(p, 0.0) for t in took])):10.1f}" for p in PARTS)
        count = sum(p.numel() for p in network.parameters())
        print(f"{name:32}{count / 1e6:10.2f}M{parts}{step:9.1f}{128e3 / step:11.0f}{action:11.2f}", flush=True)


if __name__ == "__main__":
    sys.exit(command_line.run(main))
