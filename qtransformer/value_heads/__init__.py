"""Value heads: four ways to learn a return, behind one interface (`base.ValueHead`), and the range they cover (`support`)."""

from typing_extensions import assert_never

from qtransformer.config import ValueConfig, ValueKind
from qtransformer.value_heads.base import CategoricalHead, ValueHead
from qtransformer.value_heads.c51 import C51
from qtransformer.value_heads.hl_gauss import HLGauss
from qtransformer.value_heads.mse import MSE
from qtransformer.value_heads.two_hot import TwoHot

__all__ = ["C51", "MSE", "CategoricalHead", "HLGauss", "TwoHot", "ValueHead", "make_value_head"]


def make_value_head(config: ValueConfig) -> ValueHead:
    """The head a configuration names; an end of its range that no data set yet is that of a sparse success, 0 or 1."""
    v_min = 0.0 if config.v_min is None else config.v_min
    v_max = 1.0 if config.v_max is None else config.v_max
    match config.kind:
        case ValueKind.hl_gauss:
            return HLGauss(v_min, v_max, config.num_bins, config.sigma_ratio)
        case ValueKind.two_hot:
            return TwoHot(v_min, v_max, config.num_bins)
        case ValueKind.c51:
            return C51(v_min, v_max, config.num_bins)
        case ValueKind.mse:
            return MSE(v_min, v_max)
        case unknown:
            assert_never(unknown)
