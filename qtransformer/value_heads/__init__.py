"""Value heads: four ways to learn a return, behind one interface (`base.ValueHead`)."""

from qtransformer.config import ValueConfig, ValueKind
from qtransformer.value_heads.base import CategoricalHead, ValueHead
from qtransformer.value_heads.c51 import C51
from qtransformer.value_heads.hl_gauss import HLGauss
from qtransformer.value_heads.mse import MSE
from qtransformer.value_heads.two_hot import TwoHot

__all__ = ["C51", "MSE", "CategoricalHead", "HLGauss", "TwoHot", "ValueHead", "make_value_head"]


def make_value_head(config: ValueConfig) -> ValueHead:
    """The head a configuration names."""
    match config.kind:
        case ValueKind.hl_gauss:
            return HLGauss(config.v_min, config.v_max, config.num_bins, config.sigma_ratio)
        case ValueKind.two_hot:
            return TwoHot(config.v_min, config.v_max, config.num_bins)
        case ValueKind.c51:
            return C51(config.v_min, config.v_max, config.num_bins)
        case ValueKind.mse:
            return MSE(config.v_min, config.v_max)
