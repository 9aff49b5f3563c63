"""Our Q-learning step and greedy action beside the public q-transformer 0.5.0's, in one run on one core: `make peers` first.

    .venv/bin/python benchmarks/bench_peers.py [seconds=10, of a measurement]

One camera of 64 x 64, one frame of history, 5 action dimensions of 256 bins, 32 transitions a batch, about 1.3 million
parameters on both sides. A step is all that learning needs of a batch already in memory: online forward and backward, a fresh
target forward, clipping, optimiser, target network. A sample is one transition. The peer runs its backup (per dimension), we
run ours (per dimension too, for the comparison, and n-step over dimensions, our default). Text conditioning is off on its
side, which spares it work. Rounds alternate between the sides and the best of each counts, so that other work on the machine
disturbs all alike.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command_line

ROOT = Path(__file__).parents[1]
PEER_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
SIZE, DIMS, BINS, BATCH = 64, 5, 256, 32
ROUNDS = 3


def rate(work: Callable[[], Any], seconds: float) -> float:
    """Calls per second, after a warm-up."""
    work()
    work()
    calls, begin = 0, time.perf_counter()
    while (passed := time.perf_counter() - begin) < seconds:
        work()
        calls += 1
    return calls / passed


def our_side(backup: str) -> tuple[Callable[[], Any], Callable[[], Any], int]:
    """A learning step, a greedy action of a Policy from raw images, and the number of parameters."""
    import numpy as np
    import torch

    from qtransformer import Policy
    from qtransformer.batch import Batch
    from qtransformer.checkpoint import build_network
    from qtransformer.config import TrainConfig, from_dict
    from qtransformer.learner import QLearner
    from qtransformer.types import ActionSpec, ObservationSpec

    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = {
        "model": {"action_bins": BINS, "tokens_per_image": 4, "head_dim": 32},
        "targets": {"backup": backup},
    }
    config = from_dict(TrainConfig, settings)
    action = ActionSpec(tuple("abcde"), (-1.0,) * DIMS, (1.0,) * DIMS, ("m",) * DIMS, (0,) * DIMS)
    observation = ObservationSpec({"wrist": (SIZE, SIZE, 3)}, tuple("xyz"), ("m",) * 3, 10.0)
    network = build_network(config, action, observation, {"proprio_mean": [0.0] * 3, "proprio_std": [1.0] * 3})
    learner = QLearner(config, network, torch.device("cpu"))
    b, t = BATCH // 8, 8
    shape = (b, t + 1)
    no = torch.zeros(shape, dtype=torch.bool)
    batch = Batch(
        lead=0,
        steps=t,
        images={"wrist": torch.randint(0, 256, (*shape, SIZE, SIZE, 3), dtype=torch.uint8)},
        proprio=torch.randn(*shape, 3),
        instruction=torch.zeros(*shape, 64),
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
    policy = Policy(network, config, action, observation, torch.device("cpu"))
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    seen = {"images": {"wrist": image}, "proprio": np.zeros(3, np.float32), "instruction": ""}
    steps = iter(range(10**9))
    return lambda: learner.update(batch, next(steps)), lambda: policy.act(seen), parameters(network)


def parameters(network: Any) -> int:
    return sum(p.numel() for p in network.parameters())


def their_side() -> tuple[Callable[[], Any], Callable[[], Any], int]:
    """The same of the peer, as in its own training loop; runs in .venv-peers."""
    import tempfile

    import torch
    from q_transformer import QLearner, QRoboticTransformer  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    torch.manual_seed(0)

    class WithoutText(QRoboticTransformer):
        """Its learner always hands over text; its model refuses text when told not to condition on it."""

        def forward(self, video, text_embeds=None, **settings):
            del text_embeds
            return super().forward(video, **settings)

    model = WithoutText(
        # Its README's proportions (depth 1, 8 heads of 64, heads of 32 in the encoder), narrowed to our size and these images.
        vit={"num_classes": 1, "dim_conv_stem": 32, "dim": 32, "dim_head": 32, "depth": (1, 1), "window_size": 8},
        num_actions=DIMS,
        action_bins=BINS,
        depth=1,
        heads=8,
        dim_head=64,
        condition_on_text=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        learner = QLearner(
            model,
            dataset=torch.utils.data.TensorDataset(torch.zeros(BATCH, 1)),
            batch_size=BATCH,
            num_train_steps=1,
            learning_rate=3e-4,
            checkpoint_folder=folder,
        )
    video = [torch.randn(BATCH, 3, 1, SIZE, SIZE) for _ in range(2)]
    text, actions = torch.zeros(BATCH, 1, 8), torch.randint(0, BINS, (BATCH, DIMS))
    batch = (text, video[0], actions, video[1], text[:, 0], torch.rand(BATCH).round(), torch.rand(BATCH) < 0.1)

    def step() -> None:
        learner.optimizer.zero_grad()
        loss, _ = learner.learn(*batch, min_reward=learner.min_reward)
        learner.accelerator.backward(loss)
        learner.accelerator.clip_grad_norm_(learner.model.parameters(), learner.max_grad_norm)
        learner.optimizer.step()
        learner.ema_model.update()

    frame = video[0][:1]

    def act() -> None:
        model.eval()
        model.get_optimal_actions(frame)
        model.train()

    return step, act, parameters(model)


def measure(side: str, seconds: float) -> dict[str, float]:
    step, act, count = their_side() if side == "theirs" else our_side(side)
    return {"samples": BATCH * rate(step, seconds), "action": 1e3 / rate(act, seconds / 2), "parameters": count}


def main(seconds: float = 10.0) -> int:
    if not PEER_PYTHON.exists():
        print("bench_peers: .venv-peers is missing; run `make peers` first", file=sys.stderr)
        return 2
    sides = {"theirs": PEER_PYTHON, "bellman": Path(sys.executable), "n_step": Path(sys.executable)}
    best: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        for side, python in sides.items():
            command = [str(python), __file__, "--side", side, str(seconds)]
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            found: dict[str, float] = json.loads(out.splitlines()[-1])
            old = best.get(side, found)
            best[side] = {
                "samples": max(found["samples"], old["samples"]),
                "action": min(found["action"], old["action"]),
                "parameters": found["parameters"],
            }
    peer = best["theirs"]
    print(f"one core, {SIZE} x {SIZE}, one camera, {DIMS} dimensions x {BINS} bins, {BATCH} transitions, best of {ROUNDS}")
    print(f"{'':34}{'parameters':>12}{'samples/s':>12}{'ratio':>8}{'ms/action':>12}{'ratio':>8}")
    names = {"theirs": "q-transformer 0.5.0", "bellman": "ours, per-dimension backup", "n_step": "ours, n-step over dimensions"}
    for side, name in names.items():
        x = best[side]
        print(
            f"{name:34}{x['parameters'] / 1e6:>11.2f}M{x['samples']:>12.1f}{x['samples'] / peer['samples']:>7.1f}x"
            f"{x['action']:>12.2f}{peer['action'] / x['action']:>7.1f}x"
        )
    met = best["n_step"]["samples"] >= 20 * peer["samples"] and best["n_step"]["action"] * 5 <= peer["action"]
    print(f"target (20x the samples, 5x the actions, with our default backup): {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    if "--side" in sys.argv:
        print(json.dumps(measure(sys.argv[2], float(sys.argv[3]))))
        sys.exit()
    sys.exit(command_line.run(main))
