"""Train a preset's network on a GPU and on the CPU from the same weights and batches, and compare losses: `make check-gpu`.

    .venv/bin/python benchmarks/check_gpu.py [preset=demo] [steps=40]

Ends with 0 if every loss agrees to 1e-3 (of the CPU's, absolutely below 1), with 1 if one does not, with 2 without a GPU.
Both compute in float32, without TF32; what remains is the order of sums, which grows with every step. Then the GPU's pace as
trainings have it (bfloat16 where it computes in it), in batches of several sizes.
"""

import copy
import sys
import time
from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import torch

import command_line
from qtransformer.checkpoint import build_network
from qtransformer.cli.compose import compose_settings
from qtransformer.config import TrainConfig
from qtransformer.learner import QLearner
from qtransformer.models.q_transformer import QTransformer
from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets import EpisodeDataset

TOLERANCE = 1e-3
COMPARED = ("loss", "td_loss", "conservative_loss", "mc_loss", "behavior_loss")
ACTION = ActionSpec(
    ("dx", "dy", "dz", "dyaw", "gripper", "terminate"),
    (-0.05, -0.05, -0.05, -0.3, 0.0, 0.0),
    (0.05, 0.05, 0.05, 0.3, 1.0, 1.0),
    ("m", "m", "m", "rad", "1", "1"),
    (0, 0, 0, 0, 2, 2),
)
OBSERVATION = ObservationSpec({"wrist": (64, 64, 3)}, (*"uvwxy", "gripper_closed"), ("m",) * 6, 10.0)


class Synthetic:
    """Thirty random episodes of the demo's shape."""

    action_spec, observation_spec = ACTION, OBSERVATION

    def __len__(self) -> int:
        return 30

    def __iter__(self) -> Iterator[Episode]:
        for seed in range(len(self)):
            rng = np.random.default_rng(seed)
            length = 8 + seed % 12
            last = np.arange(length) == length - 1
            actions = rng.uniform(-1, 1, (length, len(ACTION))).astype(np.float32)
            actions[:, 4:] = np.sign(actions[:, 4:])
            yield Episode(
                images={"wrist": rng.integers(0, 256, (length + 1, 64, 64, 3), np.uint8)},
                proprio=rng.normal(size=(length + 1, 6)).astype(np.float32),
                actions=actions,
                rewards=(last & (seed % 3 == 0)).astype(np.float32),
                terminated=last & (seed % 3 < 2),
                truncated=last & (seed % 3 == 2),
                success=seed % 3 == 0,
            )


def train(
    config: TrainConfig, network: QTransformer, data: EpisodeDataset, device: torch.device, steps: int
) -> tuple[list[dict[str, float]], float]:
    """Losses of every step, and samples a second after the first five."""
    learner = QLearner(config, copy.deepcopy(network).to(device), device)
    batches = data.segments(
        batch_size=config.optim.batch_segments,
        lead=learner.lead,
        steps=config.optim.segment_steps,
        lookahead=learner.lookahead,
        seed=config.seed,
        memory=network.memory,
    )
    losses, begin = [], time.perf_counter()
    for step, batch in zip(range(steps), batches, strict=False):
        if step == 5:
            begin = time.perf_counter()
        means = learner.update(batch, step).means
        losses.append({name: float(means[name][0]) for name in COMPARED if name in means})
    samples = (steps - 5) * config.optim.batch_segments * config.optim.segment_steps
    return losses, samples / (time.perf_counter() - begin)


def config_of(preset: str, *overrides: str) -> TrainConfig:
    """The settings that a preset trains with."""
    settings = compose_settings("train", [f"preset={preset}", *overrides, "dataset=synthetic", "run=none"])
    return TrainConfig(**{item.name: getattr(settings, item.name) for item in fields(TrainConfig)})


def main(preset: str = "demo", steps: int = 40) -> int:
    if not torch.cuda.is_available():
        build = f"PyTorch {torch.__version__} is {'a CUDA build' if torch.version.cuda else 'built without CUDA'}"
        print(
            f"check_gpu: no CUDA device is visible ({build}). It needs an NVIDIA GPU with about 2 GB free, its driver, and a "
            "CUDA build of PyTorch in .venv (https://pytorch.org/get-started). Nothing was checked.",
            file=sys.stderr,
        )
        return 2
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    config = config_of(preset, "optim.precision=float32", f"cloning_steps={steps // 4}")
    data = EpisodeDataset(Synthetic(), config.targets.discount)
    torch.manual_seed(config.seed)
    stats = {"proprio_mean": data.stats.proprio_mean.tolist(), "proprio_std": data.stats.proprio_std.tolist()}
    network = build_network(config, ACTION, OBSERVATION, stats)
    cpu, cpu_rate = train(config, network, data, torch.device("cpu"), steps)
    gpu, gpu_rate = train(config, network, data, torch.device("cuda"), steps)
    worst = 0.0
    print(f"{'step':>6}" + "".join(f"{name:>28}" for name in cpu[0]) + "      (CPU, GPU)")
    for step, (a, b) in enumerate(zip(cpu, gpu, strict=True)):
        worst = max(worst, *(abs(a[k] - b[k]) / max(1.0, abs(a[k])) for k in a))
        if step % max(1, steps // 8) == 0 or step == steps - 1:
            print(f"{step:>6}" + "".join(f"{f'{a[k]:.6f} {b[k]:.6f}':>28}" for k in a))
    print(f"samples/s     CPU {cpu_rate:.0f}, {torch.cuda.get_device_name()} {gpu_rate:.0f}: {gpu_rate / cpu_rate:.1f}x")
    for segments in (16, 64, 256):
        sized = config_of(preset, f"optim.batch_segments={segments}", "cloning_steps=0")
        print(f"batch of {segments:>3} segments: {train(sized, network, data, torch.device('cuda'), 25)[1]:.0f} samples/s")
    print(f"largest difference of a loss {worst:.1e}, allowed {TOLERANCE:g}: {'agrees' if worst <= TOLERANCE else 'DIFFERS'}")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(command_line.run(main))
