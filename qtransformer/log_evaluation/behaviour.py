"""The behaviour's critic: a small Q-function that regresses logged actions on the returns that followed.

It is one and the same for all checkpoints, and where fitted Q evaluation starts from.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from qtransformer.checkpoint import build_network
from qtransformer.config import Algo, ModelConfig, OptimConfig, TargetConfig, TrainConfig, ValueConfig
from qtransformer.learner import QLearner
from qtransformer.models.q_transformer import QTransformer
from qtransformer.trainer import TrainingData


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticConfig:
    """The independent judge."""

    steps: int = 1200
    """Gradient steps of the behaviour's critic."""
    fqe_steps: int = 200
    """Gradient steps of fitted Q evaluation for every checkpoint; 0 leaves critic and evaluation out."""


def critic_config(like: TrainConfig, config: CriticConfig, v_min: float, v_max: float) -> TrainConfig:
    """A small Q-Transformer that regresses returns in a range, with history, memory, action bins and discount of another."""
    return TrainConfig(
        algo=Algo.mc,
        steps=config.steps,
        value=ValueConfig(v_min=v_min, v_max=v_max),
        model=ModelConfig(
            encoder_width=16,
            embed_dim=64,
            num_layers=1,
            ff_dim=128,
            tokens_per_image=4,
            history=like.model.history,
            remember=like.model.remember,
            action_bins=like.model.action_bins,
        ),
        targets=TargetConfig(discount=like.targets.discount, conservative_weight=0.0, conservative_bins=1, behavior_mask=0.0),
        optim=OptimConfig(max_shift=2),
    )


def fit_behaviour(
    config: TrainConfig, dataset: TrainingData, device: torch.device, tick: Callable[[], object] = lambda: None
) -> QTransformer:
    """The behaviour's critic, by regression of Monte-Carlo returns."""
    torch.manual_seed(config.seed)
    stats = {"proprio_mean": dataset.stats.proprio_mean.tolist(), "proprio_std": dataset.stats.proprio_std.tolist()}
    critic = build_network(config, dataset.action_spec, dataset.observation_spec, stats).to(device)
    learner = QLearner(config, critic, device)
    batches = dataset.segments(
        batch_size=config.optim.batch_segments,
        lead=learner.lead,
        steps=config.optim.segment_steps,
        lookahead=learner.lookahead,
        seed=config.seed,
        memory=critic.memory,
    )
    critic.train()
    for step in range(config.steps):
        learner.update(next(batches), step)
        tick()
    return critic.eval()
