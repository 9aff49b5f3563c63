"""What a value head is: how a return becomes a training target, and how the network's outputs become a value.

The network emits `num_outputs` raw numbers (*logits*) for every action bin. A head says what they mean. All heads are plain
mathematics without parameters, so acting and learning cannot disagree about them.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qtransformer.errors import ConfigError

LEAST_MASS = 51e-4
"""Mass that `to_logits` leaves over all bins together, so that something can be learned of each."""


class Constant:
    """A tensor that stays as it is, with one copy for each device and type it is needed on: a copy made anew at every step would
    keep a GPU waiting."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self._copies = tensor, dict[tuple[torch.device, torch.dtype], Tensor]()

    def like(self, other: Tensor) -> Tensor:
        """Where and of the type that `other` is."""
        key = other.device, other.dtype
        if key not in self._copies:
            with torch.inference_mode(False):  # acting may come first, and learning cannot use what was made in its mode
                self._copies[key] = self.tensor.to(other)
        return self._copies[key]


class ValueHead(ABC):
    """Maps returns in the attainable range [v_min, v_max] to outputs and back.

    Args:
        v_min: lowest attainable return.
        v_max: highest attainable return.
        num_bins: how many numbers represent one value (1 for a scalar).
    """

    def __init__(self, v_min: float, v_max: float, num_bins: int) -> None:
        if not v_min < v_max:
            raise ConfigError(f"value.v_min={v_min} must be below value.v_max={v_max}; move one, or leave both to the data (null)")
        self.v_min, self.v_max, self.num_bins = float(v_min), float(v_max), int(num_bins)

    @property
    def num_outputs(self) -> int:
        """Raw numbers per action bin."""
        return self.num_bins

    @abstractmethod
    def activate(self, logits: Float[Tensor, "*b v"]) -> Float[Tensor, "*b v"]:
        """Raw outputs to what `to_value` reads: probabilities, or the scalar itself."""

    @abstractmethod
    def to_probs(self, value: Float[Tensor, "*b"]) -> Float[Tensor, "*b v"]:
        """The target representation of a return; returns outside the attainable range are clamped to it."""

    @abstractmethod
    def to_value(self, probs: Float[Tensor, "*b v"]) -> Float[Tensor, "*b"]:
        """The expected return that a representation stands for."""

    @abstractmethod
    def loss_to_probs(self, logits: Float[Tensor, "*b v"], target_probs: Float[Tensor, "*b v"]) -> Float[Tensor, "*b"]:
        """Elementwise loss between raw outputs and a target representation."""

    def loss(self, logits: Float[Tensor, "*b v"], target_value: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Elementwise loss between raw outputs and target returns."""
        return self.loss_to_probs(logits, self.to_probs(target_value))

    @abstractmethod
    def to_logits(self, probs: Float[Tensor, "*b v"]) -> Float[Tensor, "*b v"]:
        """Outputs that `activate` turns into `probs`, but for extremes in which nothing more could be learned."""

    def initial_logits(self, value: float) -> Float[Tensor, "v"]:
        """Outputs that decode to `value`: the bias of a fresh network."""
        return self.to_logits(self.to_probs(torch.tensor(float(value))))

    def q_values(self, logits: Float[Tensor, "*b v"]) -> Float[Tensor, "*b"]:
        """Expected return of raw outputs: the one path from network to value."""
        return self.to_value(self.activate(logits))

    def backup(
        self, rewards: Float[Tensor, "*b"], discounts: Float[Tensor, "*b"], next_probs: Float[Tensor, "*b v"]
    ) -> Float[Tensor, "*b v"]:
        """Target representation of `reward + discount * V`; discount 0 where there is no future."""
        return self.to_probs(rewards + discounts * self.to_value(next_probs))

    @property
    def span(self) -> float:
        """Width of the attainable range: the unit of losses on values, so that they weigh the same on any scale."""
        return self.v_max - self.v_min

    def clamp(self, value: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """A return limited to the attainable range."""
        return value.clamp(self.v_min, self.v_max)


class CategoricalHead(ValueHead):
    """A distribution over `num_bins` locations, trained by cross-entropy."""

    def __init__(self, v_min: float, v_max: float, locations: Float[Tensor, "v"]) -> None:
        super().__init__(v_min, v_max, len(locations))
        self.locations = Constant(locations)

    def activate(self, logits: Float[Tensor, "*b v"]) -> Float[Tensor, "*b v"]:
        return logits.softmax(-1)

    def to_value(self, probs: Float[Tensor, "*b v"]) -> Float[Tensor, "*b"]:
        with torch.autocast(probs.device.type, enabled=False):  # bfloat16 cannot tell apart the values of one bin
            probs = probs.to(torch.promote_types(probs.dtype, torch.float32))
            return probs @ self.locations.like(probs)

    def loss_to_probs(self, logits: Float[Tensor, "*b v"], target_probs: Float[Tensor, "*b v"]) -> Float[Tensor, "*b"]:
        return -(target_probs * F.log_softmax(logits, -1)).sum(-1)

    def to_logits(self, probs: Float[Tensor, "*b v"]) -> Float[Tensor, "*b v"]:
        # As much mass in all however many bins there are: more would move what the outputs decode to.
        return probs.clamp_min(LEAST_MASS / self.num_bins).log()
