"""Two-Hot: the target return as mass on its two neighbouring locations (Stop Regressing, section 3.1)."""

import torch
from jaxtyping import Float
from torch import Tensor

from qtransformer.errors import ConfigError
from qtransformer.value_heads.base import CategoricalHead


def two_hot(value: Float[Tensor, "*b"], locations: Float[Tensor, "v"]) -> Float[Tensor, "*b v"]:
    """Mass on the two evenly spaced locations around `value`, such that the expectation is exactly `value`.

    `p_i = (z_{i+1} - y) / (z_{i+1} - z_i)`: the nearer location gets more. (The printed Eq. 3.2 of the paper has the numerators
    the other way round, which would not preserve the mean.)
    """
    width = (locations[-1] - locations[0]) / (len(locations) - 1)
    # One position, of which neighbours take complementary shares: distances to locations that are each rounded would not sum to 1.
    position = (value[..., None] - locations[0]) / width
    return (1 - (position - torch.arange(len(locations), device=position.device)).abs()).clamp_min(0)


class TwoHot(CategoricalHead):
    """Locations evenly spaced over the attainable range, both ends included: exact without padding."""

    def __init__(self, v_min: float, v_max: float, num_bins: int = 51) -> None:
        if num_bins < 2:
            raise ConfigError(f"value.num_bins={num_bins} must be at least 2, one for each end of the range; the default is 51")
        super().__init__(v_min, v_max, torch.linspace(v_min, v_max, num_bins))

    def to_probs(self, value: Float[Tensor, "*b"]) -> Float[Tensor, "*b v"]:
        return two_hot(self.clamp(value), self.locations.like(value))
