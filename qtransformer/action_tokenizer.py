"""Continuous actions to one bin per dimension, and back (Q-Transformer, section 4.1: per-dimension discretisation)."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qtransformer.errors import ConfigError, QTransformerError
from qtransformer.types import ActionSpec


class ActionTokenizer:
    """Cuts every action dimension, scaled to [-1, 1], into bins of its own number.

    A continuous dimension of `a` bins is cut into `a` equal intervals, decoded at their centres, so that encoding moves an action
    by at most half a bin. A switch of `a` values has one bin per value, the first at -1 and the last at +1, decoded exactly.

    Args:
        num_bins: bins per dimension, each at least 2.
        switches: per dimension, whether it is a switch. None: all are continuous.
    """

    def __init__(self, num_bins: Sequence[int], switches: Sequence[bool] | None = None) -> None:
        switches = [False] * len(num_bins) if switches is None else list(switches)
        if not num_bins or min(num_bins) < 2 or len(switches) != len(num_bins):
            raise ConfigError(f"expected >= 2 bins and one switch flag per dimension, found bins {num_bins}, switches {switches}")
        self.num_bins = tuple(int(a) for a in num_bins)
        self.switches = tuple(bool(s) for s in switches)

    @classmethod
    def from_spec(cls, spec: ActionSpec, bins: int | Sequence[int]) -> "ActionTokenizer":
        """`bins` for every continuous dimension (or one number each); switches get one bin per value."""
        per_dim = [bins] * len(spec) if isinstance(bins, int) else list(bins)
        if len(per_dim) != len(spec):
            raise ConfigError(f"action_bins lists {len(per_dim)} numbers, the actions have {len(spec)} dimensions {spec.names}")
        return cls(
            [k if k else b for k, b in zip(spec.discrete, per_dim, strict=True)],
            [k > 0 for k in spec.discrete],
        )

    def __len__(self) -> int:
        return len(self.num_bins)

    @property
    def max_bins(self) -> int:
        """Width `a` of the padded tables below."""
        return max(self.num_bins)

    @property
    def bin_centers(self) -> Float[Tensor, "n a"]:
        """What each bin decodes to, in [-1, 1]; dimensions with fewer than `max_bins` bins repeat their last centre."""
        rows, widest = [], self.max_bins
        for a, switch in zip(self.num_bins, self.switches, strict=True):
            centers = torch.linspace(-1, 1, a) if switch else (torch.arange(a) + 0.5) * (2.0 / a) - 1.0
            rows.append(torch.cat([centers, centers[-1:].expand(widest - a)]))
        return torch.stack(rows)

    @property
    def bin_exists(self) -> Bool[Tensor, "n a"]:
        """False on the padding of dimensions with fewer than `max_bins` bins."""
        return torch.arange(self.max_bins) < torch.tensor(self.num_bins)[:, None]

    def encode(self, action: Float[Tensor, "*b n"]) -> Int[Tensor, "*b n"]:
        """Bin of every dimension. Values outside [-1, 1] fall into the outermost bin.

        Raises:
            QTransformerError: NaN or infinity; names row and dimension.
        """
        if not torch.isfinite(action).all():
            *row, dim = (~torch.isfinite(action)).nonzero()[0].tolist()
            raise QTransformerError(
                f"actions to encode: expected finite numbers, found {float(action[(*row, dim)])} in dimension {dim} of row "
                f"{', '.join(map(str, row)) or '0'}; clean the data (`qtransformer data inspect`)"
            )
        a = torch.tensor(self.num_bins, device=action.device)
        switch = torch.tensor(self.switches, device=action.device)
        unit = (action.clamp(-1, 1) + 1) / 2
        bins = torch.where(switch, torch.round(unit * (a - 1)), torch.floor(unit * a))
        return torch.minimum(bins.long(), a - 1)  # +1 exactly belongs to the last interval, not to one beyond it

    def decode(self, bins: Int[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
        """Centre of each chosen bin, in [-1, 1]."""
        centers = self.bin_centers.to(bins.device)
        return centers.expand(*bins.shape, -1).gather(-1, bins[..., None])[..., 0]


def take(values: Float[Tensor, "b n a *v"], bins: Int[Tensor, "b n"]) -> Float[Tensor, "b n *v"]:
    """The entry of one bin of each dimension."""
    index = bins.reshape(*bins.shape, 1, *([1] * (values.ndim - 3))).expand(-1, -1, 1, *values.shape[3:])
    return values.gather(2, index)[:, :, 0]
