"""Another value head on the same network: its last layer says the same values on other locations.

A wider range cannot be had by rescaling alone. Probabilities move to their neighbours on the new locations linearly, but the
network emits their logarithms; a sigmoid on a wider range is no affine function of its argument either. So the layer is fitted
anew, on examples of its own inputs, to what it said before, in about a second.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qtransformer.value_heads.base import CategoricalHead, ValueHead
from qtransformer.value_heads.two_hot import two_hot

EXAMPLES = 4096
"""Inputs to fit on, at most: several times the parameters per output."""
ITERATIONS = 60
RIDGE = 1e-4
"""Weight of small weights in the first fit, relative to the inputs' mean square: directions no example has stay still."""
VALUE_WEIGHT = 1e4
"""Weight of the squared difference of values, in ranges, beside the loss on distributions: values are what is acted on."""


def projection(old: ValueHead, new: ValueHead) -> Float[Tensor, "v w"]:
    """How the representation of one head is told in another's: mass moves to the two neighbouring locations, which keeps the mean
    of every distribution that lies within them. A scalar stays what it is."""
    if not (isinstance(old, CategoricalHead) and isinstance(new, CategoricalHead)):
        return torch.ones(1, 1)
    before, after = old.locations.tensor, new.locations.tensor
    return two_hot(before.clamp(after[0], after[-1]).double(), after.double()).float()


def rebin(
    out: nn.Linear, features: Float[Tensor, "k d"], old: ValueHead, new: ValueHead, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Fit a head's last layer to another value head, values and distributions staying what they are.

    Args:
        out: the layer, changed in place.
        features: examples of its inputs.
        old: what its outputs mean now.
        new: what they shall mean.
        optimizer: whose moments of the layer move along.
    """
    move = projection(old, new).to(features)
    # Drawn, not every n-th: rows run over the bins of all dimensions, of which a stride can miss whole ones.
    drawn = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:EXAMPLES]
    examples = features[drawn.to(features.device)].double()
    with torch.no_grad():
        said = old.activate(F.linear(examples, out.weight.double(), out.bias.double()))
    fitted = _fit(examples, said @ move.double(), old, new, said)
    with torch.no_grad():
        out.weight.copy_(fitted[:, :-1])
        out.bias.copy_(fitted[:, -1])
    for parameter in (out.weight, out.bias):
        move_moments(optimizer.state.get(parameter, {}) if optimizer else {}, move.T)


def move_moments(state: dict[str, Tensor], move: Float[Tensor, "w v"]) -> None:
    """AdamW's moments of weights whose first axis is moved.

    The gradient of a cross-entropy is a difference of probabilities, so it moves as they do. Of its square only an upper bound is
    known (Cauchy-Schwarz): steps are shorter at first rather than longer.
    """
    if "exp_avg" in state:
        state["exp_avg"].copy_(torch.tensordot(move, state["exp_avg"], 1))
        spread = move.sum(1).reshape(-1, *[1] * (state["exp_avg_sq"].ndim - 1))
        state["exp_avg_sq"].copy_(spread * torch.tensordot(move, state["exp_avg_sq"], 1))


@torch.enable_grad()
def _fit(
    x: Float[Tensor, "k d"], target: Float[Tensor, "k v"], old: ValueHead, new: ValueHead, said: Float[Tensor, "k w"]
) -> Float[Tensor, "v d1"]:
    """Weights and bias (last column) whose outputs come closest to `target`: least squares on logits, then the losses."""
    inputs = F.pad(x, (0, 1), value=1.0)
    gram = inputs.T @ inputs
    gram.diagonal()[:-1] += RIDGE * gram.diagonal()[:-1].mean()
    weights = torch.linalg.solve(gram, inputs.T @ new.to_logits(target)).T.contiguous().requires_grad_()
    values = old.to_value(said)
    optimizer = torch.optim.LBFGS([weights], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = F.linear(inputs, weights)
        apart = ((new.q_values(logits) - values) / new.span).square().mean()
        total = new.loss_to_probs(logits, target).mean() + VALUE_WEIGHT * apart
        total.backward()
        return total

    optimizer.step(loss)
    return weights.detach()
