"""HL-Gauss: the target return becomes a Gaussian histogram (Stop Regressing, section 3.1; Imani & White 2018)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from qtransformer.errors import ConfigError
from qtransformer.value_heads.base import CategoricalHead, Constant

PADDING = 4.0
"""Support beyond each end of the attainable range, in sigmas.

Without it the histogram of a return near the edge is cut off and decodes inwards: .9865 for 1.0 with 51 bins. The edges are
exactly where the success target and the conservative target lie. At 4 sigma the bias is below 1e-5 of the range.
"""


class HLGauss(CategoricalHead):
    """A Gaussian of width sigma around the return, integrated over each bin: `p_i = Phi((e_{i+1}-y)/s) - Phi((e_i-y)/s)`.

    Args:
        v_min: lowest attainable return. The support is padded beyond it by the head itself.
        v_max: highest attainable return.
        num_bins: bins of the padded support.
        sigma_ratio: sigma as a multiple of the bin width; .75 spreads a target over about 6 bins (Stop Regressing's choice).
    """

    def __init__(self, v_min: float, v_max: float, num_bins: int = 51, sigma_ratio: float = 0.75) -> None:
        free_bins = num_bins - 2 * PADDING * sigma_ratio
        if sigma_ratio <= 0 or free_bins < 1:
            raise ConfigError(
                f"value.kind=hl_gauss expected sigma_ratio > 0 and num_bins >= {2 * PADDING:g} * sigma_ratio + 1 (padding), found "
                f"value.num_bins={num_bins} and value.sigma_ratio={sigma_ratio}; the defaults are 51 and .75"
            )
        self.bin_width = (v_max - v_min) / free_bins
        self.sigma = sigma_ratio * self.bin_width
        low = v_min - PADDING * self.sigma
        edges = (low + self.bin_width * torch.arange(num_bins + 1, dtype=torch.float64)).float()
        super().__init__(v_min, v_max, (edges[1:] + edges[:-1]) / 2)
        self._edges = Constant(edges)

    def to_probs(self, value: Float[Tensor, "*b"]) -> Float[Tensor, "*b v"]:
        # Clamping first keeps the histogram inside the padded support, where the float32 form cannot become 0/0.
        z = (self._edges.like(value) - self.clamp(value)[..., None]) / (self.sigma * math.sqrt(2.0))
        cdf = torch.erf(z)
        return cdf.diff(dim=-1) / (cdf[..., -1:] - cdf[..., :1])
