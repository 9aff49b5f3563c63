"""AdamW: what it decays, its learning rate over a training, and its state as named tensors."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from qtransformer.config import OptimConfig


def make_optimizer(network: nn.Module, optim: OptimConfig) -> torch.optim.AdamW:
    """Weight decay on matrices and convolutions, none on biases, norms and embeddings."""
    decayed, free = [], []
    for name, parameter in network.named_parameters():
        (decayed if parameter.ndim >= 2 and name.endswith("weight") else free).append(parameter)
    shared = {"lr": optim.learning_rate, "betas": (0.9, 0.99)}
    groups = [
        {"params": decayed, "weight_decay": optim.weight_decay, **shared},
        {"params": free, "weight_decay": 0.0, **shared},
    ]
    return torch.optim.AdamW(groups, fused=True)


def learning_rate(optim: OptimConfig, step: int, total_steps: int) -> float:
    """Linear warm-up, then a cosine to a tenth of the peak."""
    if step < optim.warmup_steps:
        return optim.learning_rate * (step + 1) / optim.warmup_steps
    progress = (step - optim.warmup_steps) / max(1, total_steps - optim.warmup_steps)
    return optim.learning_rate * (0.55 + 0.45 * math.cos(math.pi * min(1.0, progress)))


def optimizer_state(optimizer: torch.optim.AdamW, network: nn.Module) -> dict[str, Tensor]:
    """State by the names of the network's parameters."""
    return {
        f"optimizer.{name}.{key}": value
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: torch.optim.AdamW, network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set what `optimizer_state` gave; other names in `state` are passed over.

    Raises:
        ValueError: a shape is not its parameter's.
    """
    for name, parameter in network.named_parameters():
        prefix = f"optimizer.{name}."
        entries = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if entries:
            optimizer.state[parameter] = {k: _restored(k, v, parameter) for k, v in entries.items()}


def _restored(name: str, value: Tensor, parameter: nn.Parameter) -> Tensor:
    """A piece of optimiser state as the optimiser left it: moments lie in memory as their parameter does (channels-last
    convolutions), because fused AdamW walks memory, not indices."""
    if name == "step":
        return value.to(parameter.device)
    if value.shape != parameter.shape:
        raise ValueError(f"{name} of shape {tuple(parameter.shape)} expected, found {tuple(value.shape)}")
    return torch.empty_like(parameter, requires_grad=False).copy_(value)
