"""C51: a categorical distribution over returns, learned by projecting the Bellman operator (Bellemare et al. 2017)."""

from jaxtyping import Float
from torch import Tensor

from qtransformer.value_heads.two_hot import TwoHot, two_hot


class C51(TwoHot):
    """Keeps whole distributions: the target is the shifted and scaled distribution of the next value, not its mean.

    A known return (a Monte-Carlo target, a floor) enters as the projected point mass, which is Two-Hot's encoding.
    """

    def backup(
        self, rewards: Float[Tensor, "*b"], discounts: Float[Tensor, "*b"], next_probs: Float[Tensor, "*b v"]
    ) -> Float[Tensor, "*b v"]:
        """The distribution of `reward + discount * Z`, projected onto the support; discount 0 where there is no future."""
        atoms = self.locations.like(next_probs)
        moved = self.clamp(rewards[..., None] + discounts[..., None] * atoms)
        return (next_probs[..., None] * two_hot(moved, atoms)).sum(-2)
