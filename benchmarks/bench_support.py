"""What a range of values too wide costs HL-Gauss, and whether another sigma or number of bins pays for it.

A small network regresses uncertain discounted successes, whose expectation is known; printed is the root mean square error of the
decoded value against it, in ranges of the data, mean over seeds. Run: python benchmarks/bench_support.py [seeds=3]
"""

import sys
from itertools import product

import torch
from torch import Tensor, nn

import command_line
from qtransformer.value_heads import HLGauss

STEPS, BATCH = 500, 128


def success_of(x: Tensor) -> Tensor:
    return torch.sigmoid(2 * x[:, :2].sum(1)) * torch.sin(x[:, 2]).abs()


def error(head: HLGauss, seed: int) -> float:
    """Root mean square error after training."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(100 + seed)
    network = nn.Sequential(nn.Linear(4, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, head.num_outputs))
    with torch.no_grad():
        network[-1].bias.copy_(head.initial_logits(0.05))  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, betas=(0.9, 0.99))
    for _ in range(STEPS):
        x = torch.randn(BATCH, 4, generator=generator)
        late = 0.98 ** torch.randint(0, 12, (BATCH,), generator=generator).float()
        outcome = torch.where(torch.rand(BATCH, generator=generator) < success_of(x), late, 0.0)
        optimizer.zero_grad()
        head.loss(network(x), outcome).mean().backward()
        optimizer.step()
    x = torch.randn(4000, 4, generator=generator)
    expected = success_of(x) * (0.98 ** torch.arange(12.0)).mean()
    with torch.no_grad():
        return float((head.q_values(network(x)) - expected).square().mean().sqrt())


def main(seeds: int = 3) -> None:
    torch.set_num_threads(1)
    print("range  bins  sigma/bin  error")
    cells = [(width, 51, 0.75) for width in (1.0, 1.5, 3.0, 10.0, 50.0)]
    cells += [(width, 51, ratio) for width, ratio in product((1.0, 3.0), (0.25, 0.5, 1.0, 1.5, 2.5))]
    cells += [(width, bins, 0.75) for width, bins in product((1.0, 3.0, 10.0), (21, 151))]
    for width, bins, ratio in cells:
        errors = torch.tensor([error(HLGauss(1.0 - width, 1.0, bins, ratio), seed) for seed in range(seeds)])
        print(f"{width:5.1f} {bins:5d} {ratio:9.2f}   {errors.mean():.4f} +- {errors.std():.4f}", flush=True)


if __name__ == "__main__":
    sys.exit(command_line.run(main))
