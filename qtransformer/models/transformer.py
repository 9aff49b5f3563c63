"""A causal transformer whose keys and values can be kept, so that a further token costs one token's work."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

KeysValues = tuple[Float[Tensor, "b heads _ d"], Float[Tensor, "b heads _ d"]]
"""What one block remembers of the tokens it has seen, however many (`_`)."""


class Block(nn.Module):
    """Pre-norm causal self-attention and feed-forward."""

    def __init__(self, embed_dim: int, num_heads: int, ff_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(embed_dim)
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.out = nn.Linear(embed_dim, embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.feed_forward = nn.Sequential(nn.Linear(embed_dim, ff_dim), nn.GELU(), nn.Linear(ff_dim, embed_dim))

    def forward(self, x: Float[Tensor, "b s e"], past: KeysValues | None) -> tuple[Float[Tensor, "b s e"], KeysValues]:
        """Attend to `past` and causally within `x`. With a past, `x` must be a single token."""
        b, s, e = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, s, 3, self.num_heads, e // self.num_heads).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        x = x + self.out(attended.transpose(1, 2).reshape(b, s, e))
        return x + self.feed_forward(self.norm2(x)), (k, v)


def repeated(remembered: KeysValues, times: int) -> tuple[Float[Tensor, "k heads _ d"], Float[Tensor, "k heads _ d"]]:
    """The memory of a batch of which every row goes on in several ways; copies of a row follow each other."""
    keys, values = remembered
    return keys.repeat_interleave(times, 0), values.repeat_interleave(times, 0)


class CausalTransformer(nn.Module):
    """A stack of blocks with a final norm."""

    def __init__(self, embed_dim: int, num_layers: int, num_heads: int, ff_dim: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, ff_dim) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(
        self, x: Float[Tensor, "b s e"], past: list[KeysValues] | None = None
    ) -> tuple[Float[Tensor, "b s e"], list[KeysValues]]:
        """All tokens at once, or with `past` one further token. Returns the outputs of `x` and the grown memory."""
        present = []
        for i, block in enumerate(self.blocks):
            x, kv = block(x, None if past is None else past[i])
            present.append(kv)
        return self.norm(x), present
