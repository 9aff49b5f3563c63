"""A causal transformer whose keys and values can be kept, so that a further token costs one token's work."""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class KeyValueCache(NamedTuple):
    """What one block remembers of the tokens it has seen, and room for further ones."""

    keys: Float[Tensor, "b heads room d"]
    values: Float[Tensor, "b heads room d"]
    length: int
    """Tokens seen: the rest is room."""

    def for_copies(self, copies: int, room: int) -> "KeyValueCache":
        """The cache of a batch of which every row goes on in several ways, by at most `room` tokens; copies of a row follow
        each other."""

        def widened(x: Float[Tensor, "b heads s d"]) -> Float[Tensor, "k heads r d"]:
            b, heads, _, d = x.shape
            wide = x.new_empty(b * copies, heads, self.length + room, d)
            wide[:, :, : self.length] = x[:, :, : self.length].repeat_interleave(copies, 0)
            return wide

        return KeyValueCache(widened(self.keys), widened(self.values), self.length)

    def add(self, key: Float[Tensor, "b heads 1 d"], value: Float[Tensor, "b heads 1 d"]) -> "KeyValueCache":
        """The cache with one more token, in place: copying all of it for every token would take longer than attending to it."""
        self.keys[:, :, self.length], self.values[:, :, self.length] = key[:, :, 0], value[:, :, 0]
        return self._replace(length=self.length + 1)

    def seen(self) -> tuple[Float[Tensor, "b heads s d"], Float[Tensor, "b heads s d"]]:
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


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

    def forward(self, x: Float[Tensor, "b s e"], past: KeyValueCache | None) -> tuple[Float[Tensor, "b s e"], KeyValueCache]:
        """Attend to `past` and causally within `x`. With a past, `x` must be a single token for which there is room."""
        b, s, e = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, s, 3, self.num_heads, e // self.num_heads).permute(2, 0, 3, 1, 4)
        present = KeyValueCache(k, v, s) if past is None else past.add(k, v)
        attended = F.scaled_dot_product_attention(q, *present.seen(), is_causal=past is None)
        x = x + self.out(attended.transpose(1, 2).reshape(b, s, e))
        return x + self.feed_forward(self.norm2(x)), present


class CausalTransformer(nn.Module):
    """A stack of blocks with a final norm."""

    def __init__(self, embed_dim: int, num_layers: int, num_heads: int, ff_dim: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, ff_dim) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(
        self, x: Float[Tensor, "b s e"], past: list[KeyValueCache] | None = None
    ) -> tuple[Float[Tensor, "b s e"], list[KeyValueCache]]:
        """All tokens at once, or with `past` one further token. Returns the outputs of `x` and the grown caches."""
        present = []
        for i, block in enumerate(self.blocks):
            x, kv = block(x, None if past is None else past[i])
            present.append(kv)
        return self.norm(x), present
