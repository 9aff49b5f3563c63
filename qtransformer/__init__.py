"""qtransformer: turn logged robot data into a grasping policy and run it on an arm."""

__version__ = "0.1.0"

from qtransformer.acting import ActingConfig
from qtransformer.action_tokenizer import ActionTokenizer
from qtransformer.config import TrainConfig
from qtransformer.errors import QTransformerError
from qtransformer.policy import Policy
from qtransformer.trainer import Run, Trainer
from qtransformer.types import ActionSpec, Episode, Observation, ObservationSpec
from qtransformer.value_heads import C51, MSE, HLGauss, TwoHot

__all__ = [
    "C51",
    "MSE",
    "ActingConfig",
    "ActionSpec",
    "ActionTokenizer",
    "Episode",
    "HLGauss",
    "Observation",
    "ObservationSpec",
    "Policy",
    "QTransformerError",
    "Run",
    "TrainConfig",
    "Trainer",
    "TwoHot",
    "__version__",
]
