"""Segments: the shape in which logged data reaches the network.

All episodes lie end to end in one *stream of frames*. An episode of T steps puts T + 1 frames there: its T observations with
their actions, and its final observation, whose frame carries no action. A training sample is a *segment*: `f` consecutive
frames of the stream, wherever they fall, laid out as

    | lead (w - 1 frames) | steps (t frames) | lookahead (k frames) |

Losses are taken on the `t` step frames; the lead-in completes their history windows and the lookahead their (n-step) bootstrap
targets. So every frame is encoded once per network, nothing is padded, and every step is drawn equally often. Frames know where
their episode starts, so neither a window nor a return ever crosses from one episode into the next.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """`b` segments of `f = lead + steps + lookahead` frames; see the module docstring."""

    lead: int
    """Lead-in frames, the history window less one."""
    steps: int
    """Frames the losses are taken on."""
    images: dict[str, UInt8[Tensor, "b f h w c"]]
    """RGB, one entry per camera; stays uint8 until it is on the device."""
    proprio: Float[Tensor, "b f p"]
    """Raw proprioception in its units; the network normalises."""
    instruction: Float[Tensor, "b f d"]
    """Hashed instruction features (`preprocess.encode_instruction`)."""
    episode_start: Int[Tensor, "b f"]
    """Index, within the segment, of the first frame of this frame's episode; negative where it lies before the segment."""
    has_action: Bool[Tensor, "b f"]
    """False on final observations: no action was taken there."""
    actions: Float[Tensor, "b f n"]
    """Scaled to [-1, 1]; zero where `has_action` is false."""
    rewards: Float[Tensor, "b f"]
    """Reward of the action taken at this frame."""
    terminated: Bool[Tensor, "b f"]
    """This frame's action ended the episode for good: no bootstrap."""
    truncated: Bool[Tensor, "b f"]
    """This frame's action ran into the time limit: bootstrap from the next frame."""
    lost_final: Bool[Tensor, "b f"]
    """A truncated step whose final observation the log lost: masked from bootstrapped targets and counted."""
    mc_return: Float[Tensor, "b f"]
    """Discounted return-to-go of the same episode."""
    success: Bool[Tensor, "b f"]
    """Whether this frame's episode succeeded."""
    remembered: Float[Tensor, "b f m p"] | None = None
    """Proprioception at the earlier frames of the episode that a `Memory` keeps, the latest first; NaN where there is none yet."""
    return_bound: Float[Tensor, "b f"] | None = None
    """A lower bound of what the behaviour's return would have been without time limits; None where `mc_return` is one, because no
    reward is negative."""

    @property
    def step_frames(self) -> Int[Tensor, "b t"]:
        """The frames of every segment that losses are taken on."""
        return torch.arange(self.lead, self.lead + self.steps, device=self.rewards.device).expand(len(self.rewards), -1)

    def of_steps(self, values: Shaped[Tensor, "b f *rest"]) -> Shaped[Tensor, "k *rest"]:
        """What is known of all frames, of those that losses are taken on: of all segments in a row, k of them."""
        return values[:, self.lead : self.lead + self.steps].flatten(0, 1)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device (images still uint8)."""

        def move(value: object) -> object:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=True)
            if isinstance(value, dict):
                return {k: v.to(device, non_blocking=True) for k, v in value.items()}
            return value

        return Batch(**{f.name: move(getattr(self, f.name)) for f in fields(self)})  # pyright: ignore[reportArgumentType]
