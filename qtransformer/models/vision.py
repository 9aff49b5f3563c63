"""Image encoders: FiLM-conditioned convolutions, condensed to a few tokens by TokenLearner.

FiLM (Perez et al. 2018) lets the instruction scale and shift every channel; TokenLearner (Ryoo et al. 2021) lets the network
choose where to look. Both follow the Q-Transformer's and RT-1's vision stack.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qtransformer.config import EncoderKind
from qtransformer.preprocess import INSTRUCTION_DIM


class FiLM(nn.Module):
    """Scales and shifts channels by the instruction. Starts as the identity, so an uninformative instruction costs nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_scale_shift = nn.Linear(INSTRUCTION_DIM, 2 * channels)
        nn.init.zeros_(self.to_scale_shift.weight)
        nn.init.zeros_(self.to_scale_shift.bias)

    def forward(self, x: Float[Tensor, "b c h w"], instruction: Float[Tensor, "b d"]) -> Float[Tensor, "b c h w"]:
        scale, shift = self.to_scale_shift(instruction)[..., None, None].chunk(2, dim=1)
        return x * (1 + scale) + shift


class ConvEncoder(nn.Module):
    """Three convolutions to an eighth of the resolution. The first reads patches of 8 pixels every 4, where a pyramid of small
    kernels would spend most of a CPU's time on the full image (measured in docs/log.md)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_channels = 2 * width
        shapes = [(3, width, 8, 4, 2), (width, 2 * width, 3, 2, 1), (2 * width, 2 * width, 3, 1, 1)]
        convs = [nn.Conv2d(i, o, k, stride, padding) for i, o, k, stride, padding in shapes]
        for conv in convs:  # PyTorch's default would shrink the image's trace to a hundredth over three layers
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        self.convs = nn.ModuleList(convs)
        self.films = nn.ModuleList(FiLM(o) for _, o, _, _, _ in shapes)

    def forward(self, x: Float[Tensor, "b c h w"], instruction: Float[Tensor, "b d"]) -> Float[Tensor, "b c2 h2 w2"]:
        for conv, film in zip(self.convs, self.films, strict=True):
            x = F.leaky_relu(film(conv(x), instruction), 0.1)
        return x


class ResidualBlock(nn.Module):
    """ResNet's basic block with group normalisation, whose output FiLM conditions before it is added."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(8, c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(8, c_out)
        self.film = FiLM(c_out)
        self.skip = nn.Identity() if c_in == c_out and stride == 1 else nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"], instruction: Float[Tensor, "b d"]) -> Float[Tensor, "b c2 h2 w2"]:
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.film(self.norm2(self.conv2(y)), instruction)
        return F.relu(self.skip(x) + y)


class ResNet18Encoder(nn.Module):
    """ResNet-18 (He et al. 2016) without its classifier; `width` 64 is the original size.

    Group normalisation replaces batch normalisation: frames of one segment are too alike for batch statistics, and a robot acts
    on batches of one.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_channels = 8 * width
        self.stem = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.norm = nn.GroupNorm(8, width)
        stages = [(width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 8 * width, 2)]
        self.blocks = nn.ModuleList()
        for c_in, c_out, stride in stages:
            self.blocks += [ResidualBlock(c_in, c_out, stride), ResidualBlock(c_out, c_out, 1)]

    def forward(self, x: Float[Tensor, "b c h w"], instruction: Float[Tensor, "b d"]) -> Float[Tensor, "b c2 h2 w2"]:
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 3, 2, 1)
        for block in self.blocks:
            x = block(x, instruction)
        return x


def position_features(h: int, w: int, device: torch.device) -> Float[Tensor, "h w 10"]:
    """Where a place of a feature map lies, as its coordinates and their sines: works for any image size."""
    rows = torch.linspace(-1, 1, h, device=device)[:, None].expand(h, w)
    cols = torch.linspace(-1, 1, w, device=device)[None, :].expand(h, w)
    coordinates = torch.stack([rows, cols], -1)
    waves = [f(coordinates * scale * torch.pi) for scale in (0.5, 1.0) for f in (torch.sin, torch.cos)]
    return torch.cat([coordinates, *waves], -1)


class TokenLearner(nn.Module):
    """Condenses a feature map to `num_tokens` tokens, each the average under an attention map of its own."""

    def __init__(self, channels: int, embed_dim: int, num_tokens: int) -> None:
        super().__init__()
        self.position = nn.Linear(10, channels)
        self.attention = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU(), nn.Conv2d(channels, num_tokens, 1))
        self.project = nn.Linear(channels, embed_dim)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b s e"]:
        x = x + self.position(position_features(x.shape[-2], x.shape[-1], x.device)).movedim(-1, 0)
        weights = self.attention(x).flatten(2).softmax(-1)
        return self.project(weights @ x.flatten(2).transpose(1, 2))


class PlaceReadout(nn.Module):
    """Reads a feature map place by place, without pooling.

    TokenLearner starts from near-uniform attention, under which all images look alike: on noisy data its tokens carried nothing
    for thousands of steps. This readout carries where things are from the first step (measured in docs/log.md).
    """

    GRID = 8
    """Larger maps are averaged to this many rows and columns."""
    CHANNELS = 16
    """Of every place, so that the layer that reads them all stays small."""

    def __init__(self, channels: int, embed_dim: int, num_tokens: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.narrow = nn.Conv2d(channels, self.CHANNELS, 1)
        self.project = nn.Linear(self.CHANNELS * self.GRID**2, num_tokens * embed_dim)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b s e"]:
        places = F.adaptive_avg_pool2d(F.gelu(self.narrow(x)), self.GRID).flatten(1)
        return self.project(places).unflatten(1, (self.num_tokens, -1))


ENCODERS: dict[EncoderKind, type[ConvEncoder] | type[ResNet18Encoder]] = {
    EncoderKind.conv: ConvEncoder,
    EncoderKind.resnet18: ResNet18Encoder,
}


class ImageTokenizer(nn.Module):
    """One camera's images to tokens, each the sum of what TokenLearner attends to and of a readout of all places."""

    def __init__(self, kind: EncoderKind, width: int, embed_dim: int, num_tokens: int) -> None:
        super().__init__()
        self.encoder = ENCODERS[kind](width)
        self.norm = nn.LayerNorm(self.encoder.out_channels)
        self.token_learner = TokenLearner(self.encoder.out_channels, embed_dim, num_tokens)
        self.places = PlaceReadout(self.encoder.out_channels, embed_dim, num_tokens)

    def forward(self, images: Float[Tensor, "b c h w"], instruction: Float[Tensor, "b d"]) -> Float[Tensor, "b s e"]:
        x = self.norm(self.encoder(images, instruction).movedim(1, -1)).movedim(-1, 1)
        return self.token_learner(x) + self.places(x)
