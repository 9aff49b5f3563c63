"""The Q-Transformer: observations in, one value for every bin of every action dimension out (Chebotar et al. 2023).

    frames -> vision + proprioception tokens -> window of the history -> causal transformer over
    [observation tokens, start, a^1 .. a^{n-1}] -> per position, the values of the next dimension's bins

There is one path to Q: learning (`forward`, all dimensions at once under the logged action) and acting (`greedy`, one dimension
after the other with kept keys and values) share the trunk, the head and its decoding.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from qtransformer.action_tokenizer import ActionTokenizer, take
from qtransformer.config import ModelConfig
from qtransformer.errors import ConfigError, SpecMismatchError
from qtransformer.memory import MEMORIES, Memory
from qtransformer.models.transformer import CausalTransformer
from qtransformer.models.vision import ImageTokenizer
from qtransformer.types import ObservationSpec
from qtransformer.value_heads import ValueHead
from qtransformer.value_heads.rebinning import rebin

PROPRIO_SCALES = (0.5, 1.0, 2.0)
"""Frequencies of the sine features of proprioception, in half-turns per standard deviation."""
OUTPUT_STD = 0.1
"""Of the first weights of a head's last layer: the values of a fresh network differ little from its bias."""


class QOutput(NamedTuple):
    """What the network says of every bin of every dimension, given the dimensions before it."""

    q_logits: Float[Tensor, "b n a v"]
    q_values: Float[Tensor, "b n a"]
    policy_logits: Float[Tensor, "b n a"]


class Decision(NamedTuple):
    """A greedy action and what was seen on the way: row i is conditioned on the bins chosen before it."""

    bins: Int[Tensor, "b n"]
    q_values: Float[Tensor, "b n a"]
    policy_logits: Float[Tensor, "b n a"]
    allowed: Bool[Tensor, "b n a"]
    """Bins the behaviour mask left to choose from."""
    chosen_probs: Float[Tensor, "b n v"]
    """Value representation of the chosen bin of each dimension."""


class BinHead(nn.Module):
    """Outputs for every bin of a dimension from one small network, told which bin it speaks of.

    Bins share weights and start from features of their centre, so neighbouring bins start alike and learn from each other; and
    256 bins cost no more parameters than 16.
    """

    def __init__(self, embed_dim: int, head_dim: int, tokenizer: ActionTokenizer, bias: Float[Tensor, "v"]) -> None:
        super().__init__()
        self.project = nn.Linear(embed_dim, head_dim)
        self.bin_embedding = nn.Parameter(bin_features(tokenizer, head_dim))
        self.out = nn.Linear(head_dim, len(bias))
        nn.init.normal_(self.out.weight, std=OUTPUT_STD)
        with torch.no_grad():
            self.out.bias.copy_(bias)

    def forward(self, hidden: Float[Tensor, "b n e"], first_dim: int = 0) -> Float[Tensor, "b n a v"]:
        """All bins of the dimensions `first_dim ...`."""
        bins = self.bin_embedding[first_dim : first_dim + hidden.shape[1]]
        return self.out(nn.functional.gelu(self.project(hidden)[:, :, None] + bins))

    def at(self, hidden: Float[Tensor, "b n e"], bins: Int[Tensor, "b n c"], first_dim: int = 0) -> Float[Tensor, "b n c v"]:
        """Some bins of each of the dimensions `first_dim ...`, without computing the others."""
        return self.out(self.features(hidden, bins, first_dim))

    def features(self, hidden: Float[Tensor, "b n e"], bins: Int[Tensor, "b n c"], first_dim: int = 0) -> Float[Tensor, "b n c d"]:
        """What the last, linear layer sees of them."""
        dims = torch.arange(first_dim, first_dim + bins.shape[1], device=bins.device)[:, None]
        return nn.functional.gelu(self.project(hidden)[:, :, None] + self.bin_embedding[dims, bins])

    def rebin(
        self,
        hidden: Float[Tensor, "b n e"],
        exists: Bool[Tensor, "n a"],
        old: ValueHead,
        new: ValueHead,
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        """Say the same of every bin that exists in the outputs of another value head; `hidden` are examples."""
        inputs = nn.functional.gelu(self.project(hidden)[:, :, None] + self.bin_embedding)
        rebin(self.out, inputs[:, exists].flatten(0, 1), old, new, optimizer)


def _with_waves(x: Float[Tensor, "*b p"]) -> Float[Tensor, "*b k"]:
    waves = [f(x * scale * torch.pi) for scale in PROPRIO_SCALES for f in (torch.sin, torch.cos)]
    return torch.cat([x, *waves], -1)


def remembered_index(name: str, observation_spec: ObservationSpec) -> int | None:
    """Where the value of `model.remember` is in proprioception; None where nothing is remembered.

    Raises:
        ConfigError: proprioception has no such value.
    """
    if name and name not in observation_spec.proprio_names:
        known = ", ".join(observation_spec.proprio_names)
        raise ConfigError(
            f"model.remember={name}: expected a value of the data's proprioception, which has {known}; name one that rises when "
            "the gripper closes, or set model.remember='' to remember nothing"
        )
    return observation_spec.proprio_names.index(name) if name else None


def window_index(frames: Int[Tensor, "*b"], episode_start: Int[Tensor, "*c"], history: int) -> Int[Tensor, "*c history"]:
    """The frames of each frame's window, oldest first: before its episode's first frame that one, as a robot repeats it."""
    ages = torch.arange(history - 1, -1, -1, device=frames.device)
    return torch.maximum(frames[..., None] - ages, episode_start[..., None])


def _refuse_names(cameras: Sequence[str]) -> None:
    """Encoders are PyTorch modules under their cameras' names, and not every name can be one's."""
    for name in cameras:
        if "." in name or not name or hasattr(nn.ModuleDict(), name):
            raise SpecMismatchError(
                f"camera '{name}': expected a name without a dot that PyTorch does not use itself; rename it, "
                f"cameras={{{name.rsplit('.', 1)[-1]}_camera:{name}}} is an option of every dataset"
            )


def bin_features(tokenizer: ActionTokenizer, width: int) -> Float[Tensor, "n a d"]:
    """Random smooth functions of the bin centre, different for every dimension of the action."""
    n = len(tokenizer)
    centers = tokenizer.bin_centers[..., None]
    frequency = torch.randn(n, 1, width) * 2.0
    phase = torch.rand(n, 1, width) * 2 * torch.pi
    return 0.5 * torch.sin(centers * frequency + phase)


class QTransformer(nn.Module):
    """See the module docstring.

    Args:
        config: sizes.
        value_head: what the outputs mean.
        tokenizer: action bins.
        observation_spec: cameras and proprioception to expect.
        proprio_mean: mean of proprioception in the training data, shape (p,), in its units.
        proprio_std: standard deviation of the same.
        initial_value: what a fresh network predicts everywhere.
    """

    proprio_mean: Tensor
    proprio_std: Tensor
    bin_exists: Bool[Tensor, "n a"]
    """False on the padding of dimensions with fewer bins than the widest."""

    def __init__(
        self,
        config: ModelConfig,
        value_head: ValueHead,
        tokenizer: ActionTokenizer,
        observation_spec: ObservationSpec,
        proprio_mean: Float[Tensor, "p"],
        proprio_std: Float[Tensor, "p"],
        initial_value: float = 0.0,
    ) -> None:
        super().__init__()
        e, n = config.embed_dim, len(tokenizer)
        self.config, self.value_head, self.tokenizer = config, value_head, tokenizer
        self.cameras = tuple(sorted(observation_spec.cameras))
        _refuse_names(self.cameras)
        self.image_tokenizers = nn.ModuleDict(
            {name: ImageTokenizer(config.encoder, config.encoder_width, e, config.tokens_per_image) for name in self.cameras}
        )
        self.register_buffer("proprio_mean", proprio_mean.float().clone())
        # A value that never changed in the data has no scale of its own: keep its unit.
        self.register_buffer("proprio_std", torch.where(proprio_std > 1e-6, proprio_std, 1.0).float())
        features = len(proprio_mean) * (1 + 2 * len(PROPRIO_SCALES))
        self.proprio_tokenizer = nn.Sequential(nn.Linear(features, e), nn.GELU(), nn.Linear(e, e))
        self._remembered_index = remembered_index(config.remember, observation_spec)
        self.slot_embedding = nn.Parameter(0.02 * torch.randn(self.tokens_per_frame, e))
        self.age_embedding = nn.Parameter(0.02 * torch.randn(config.history, 1, e))
        self.start = nn.Linear(self.tokens_per_frame * e, e)
        # Small against observation tokens: actions of standard size would drown what the camera says.
        self.action_embedding = nn.Parameter(0.2 * bin_features(tokenizer, e))
        self.transformer = CausalTransformer(e, config.num_layers, config.num_heads, config.ff_dim)
        initial = value_head.initial_logits(initial_value)
        self.q_head = BinHead(e, config.head_dim, tokenizer, initial)
        self.mc_head = BinHead(e, config.head_dim, tokenizer, initial)
        self.policy_head = BinHead(e, config.head_dim, tokenizer, torch.zeros(1))
        if config.remember:  # last, so that everything before starts as it does without
            self.memory_tokenizer = nn.Sequential(nn.Linear(MEMORIES * (features + 1), e), nn.GELU(), nn.Linear(e, e))
        self.register_buffer("bin_exists", tokenizer.bin_exists, persistent=False)
        self.num_dims = n

    @property
    def tokens_per_frame(self) -> int:
        return len(self.cameras) * self.config.tokens_per_image + 1

    @property
    def memory(self) -> Memory | None:
        """What is remembered of an episode's frames, if anything."""
        index = self._remembered_index
        return None if index is None else Memory(index, float(self.proprio_mean[index]))

    def encode_frames(
        self,
        images: dict[str, Float[Tensor, "b f c h w"]],
        proprio: Float[Tensor, "b f p"],
        instruction: Float[Tensor, "b f d"],
        remembered: Float[Tensor, "b f m p"] | None = None,
    ) -> Float[Tensor, "b f s e"]:
        """Every frame to its tokens, which depend on no other frame (but for what is `remembered` of others, see `memory`): encoded
        once, kept on the robot."""
        b, f = proprio.shape[:2]
        flat_instruction = instruction.flatten(0, 1)
        tokens = [self.image_tokenizers[c](images[c].flatten(0, 1), flat_instruction) for c in self.cameras]
        felt = self.proprio_tokenizer(self._proprio_features(proprio.flatten(0, 1)))
        if self.config.remember:
            if remembered is None:
                raise SpecMismatchError(
                    f"model.remember={self.config.remember}: expected what is remembered of every frame, found nothing; draw "
                    "batches with memory=network.memory"
                )
            felt = felt + self.memory_tokenizer(self._memory_features(proprio.flatten(0, 1), remembered.flatten(0, 1)))
        tokens.append(felt[:, None])
        return (torch.cat(tokens, dim=1) + self.slot_embedding).unflatten(0, (b, f))

    def _proprio_features(self, proprio: Float[Tensor, "b p"]) -> Float[Tensor, "b k"]:
        return _with_waves(self.normalised(proprio))

    def normalised(self, proprio: Float[Tensor, "*b p"]) -> Float[Tensor, "*b p"]:
        """Proprioception in standard deviations from its mean, five at most."""
        return ((proprio - self.proprio_mean) / self.proprio_std).clamp(-5, 5)

    def _memory_features(self, proprio: Float[Tensor, "b p"], remembered: Float[Tensor, "b m p"]) -> Float[Tensor, "b k"]:
        """How far everything has moved since: zeros where there is nothing to remember, and a flag that says so."""
        exists = ~remembered.isnan()
        moved = torch.where(exists, (proprio[:, None] - remembered) / self.proprio_std, 0.0).clamp(-5, 5)
        return torch.cat([_with_waves(moved) * exists[..., :1], exists[..., :1]], -1).flatten(1)

    def windows(
        self, tokens: Float[Tensor, "b f s e"], episode_start: Int[Tensor, "b f"], first: int, count: int
    ) -> Float[Tensor, "k s2 e"]:
        """History windows of the frames `first .. first + count - 1`, k = b * count of them; see `window_index`."""
        now = torch.arange(first, first + count, device=tokens.device)
        index = window_index(now, episode_start[:, first : first + count], self.config.history)  # (b, count, history)
        batch = torch.arange(len(tokens), device=tokens.device)[:, None, None]
        return self.add_age(tokens[batch, index].flatten(0, 1))

    def add_age(self, window: Float[Tensor, "b w s e"]) -> Float[Tensor, "b s2 e"]:
        """Tokens of a window, told how old their frame is; oldest first."""
        return (window + self.age_embedding).flatten(1, 2)

    def begin(self, context: Float[Tensor, "b s e"]) -> Float[Tensor, "b s2 e"]:
        """The window followed by the start token, which is a summary of the newest frame: the decision has a direct line to what
        is seen now and need not wait for attention to find it."""
        newest = context[:, -self.tokens_per_frame :].flatten(1)
        return torch.cat([context, self.start(newest)[:, None]], dim=1)

    def hidden(self, context: Float[Tensor, "b s e"], bins: Int[Tensor, "b n"]) -> Float[Tensor, "b n e"]:
        """The transformer's outputs from which each dimension's bins are valued, under the given action's prefix."""
        dims = torch.arange(self.num_dims - 1, device=bins.device)
        prefix = self.action_embedding[dims, bins[:, :-1]]
        x = torch.cat([self.begin(context), prefix], dim=1)
        return self.transformer(x)[0][:, context.shape[1] :]

    def forward(self, context: Float[Tensor, "b s e"], bins: Int[Tensor, "b n"]) -> QOutput:
        """Values of every bin of every dimension, given the dimensions of `bins` before it."""
        return self.output_heads(self.hidden(context, bins))

    def output_heads(self, hidden: Float[Tensor, "b n e"], first_dim: int = 0) -> QOutput:
        """Outputs of the heads for all bins of the dimensions `first_dim ...`."""
        q_logits = self.q_head(hidden, first_dim)
        return QOutput(q_logits, self.value_head.q_values(q_logits), self.policy_head(hidden, first_dim)[..., 0])

    def value_probs(self, context: Float[Tensor, "b s e"], bins: Int[Tensor, "b n"]) -> Float[Tensor, "b v"]:
        """Representation of the value of whole actions: of their last dimension, given those before it."""
        last = self.num_dims - 1
        logits = self.q_head.at(self.hidden(context, bins)[:, -1:], bins[:, -1:, None], first_dim=last)
        return self.value_head.activate(logits[:, 0, 0])

    def rebin(self, hidden: Float[Tensor, "b n e"], value_head: ValueHead, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Represent values by another head from here on, without changing them; see `value_heads.rebinning`."""
        for head in (self.q_head, self.mc_head):
            head.rebin(hidden, self.bin_exists, self.value_head, value_head, optimizer)
        self.value_head = value_head

    def allowed(self, policy_logits: Float[Tensor, "b n a"], behavior_mask: float, first_dim: int = 0) -> Bool[Tensor, "b n a"]:
        """Existing bins the behaviour takes at least `behavior_mask` times as often as its likeliest one (BCQ's rule)."""
        exists = self.bin_exists[first_dim : first_dim + policy_logits.shape[1]].expand_as(policy_logits)
        if behavior_mask <= 0:
            return exists
        logits = policy_logits.masked_fill(~exists, -torch.inf)
        best = logits.amax(-1, keepdim=True)
        return logits >= best + math.log(behavior_mask)

    @torch.no_grad()
    def greedy(
        self, context: Float[Tensor, "b s e"], behavior_mask: float, imitate: bool = False, dims: int | None = None
    ) -> Decision:
        """Decide one dimension after the other, each by the argmax given those before it.

        Args:
            context: windows of observation tokens.
            behavior_mask: see `allowed`; 0 chooses among all bins.
            imitate: follow the behaviour classifier instead of the values (`algo=bc`).
            dims: decide only the first `dims` dimensions (None: all).
        """
        out, past = self.transformer(self.begin(context))
        past = [kv.for_copies(1, self.num_dims - 1) for kv in past]
        steps: list[Decision] = []
        for i in range(self.num_dims if dims is None else dims):
            if steps:
                out, past = self.transformer(self.action_embedding[i - 1, steps[-1].bins], past)
            output = self.output_heads(out[:, -1:], first_dim=i)
            allowed = self.allowed(output.policy_logits, behavior_mask, first_dim=i)
            scores = output.policy_logits if imitate else output.q_values
            bins = scores.masked_fill(~allowed, -torch.inf).argmax(-1)
            probs = self.value_head.activate(take(output.q_logits, bins))
            steps.append(Decision(bins, output.q_values, output.policy_logits, allowed, probs))
        return Decision(*(torch.cat(parts, dim=1) for parts in zip(*steps, strict=True)))

    @torch.no_grad()
    def best_of(
        self, context: Float[Tensor, "b s e"], proposals: int, behavior_mask: float, generator: torch.Generator
    ) -> Decision:
        """The decision for the most valuable of whole actions that the behaviour classifier proposes; see `propose`."""
        return self.reasons(context, self.propose(context, proposals, behavior_mask, generator)[0], behavior_mask)

    @torch.no_grad()
    def reasons(self, context: Float[Tensor, "b s e"], bins: Int[Tensor, "b n"], behavior_mask: float) -> Decision:
        """The decision for actions that were chosen already, whole."""
        output = self(context, bins)
        allowed = self.allowed(output.policy_logits, behavior_mask)
        probs = self.value_head.activate(take(output.q_logits, bins))
        return Decision(bins, output.q_values, output.policy_logits, allowed, probs)

    @torch.no_grad()
    def propose(
        self, context: Float[Tensor, "b s e"], proposals: int, behavior_mask: float, generator: torch.Generator
    ) -> tuple[Int[Tensor, "b n"], Float[Tensor, "b v"]]:
        """Draw whole actions from the behaviour classifier and keep the most valuable (EMaQ, Ghasemipour et al. 2021).

        A maximum over every bin of every dimension finds what the values are wrong about; one over a few actions that have
        been done before is wrong more rarely, and does something even where values are level.

        Returns:
            The bins of the best action, and the representation of its value.
        """
        bins, probs = self.candidates(context, proposals, behavior_mask, generator)
        best = self.value_head.to_value(probs).argmax(-1)
        rows = torch.arange(len(context), device=best.device)
        return bins[rows, best], probs[rows, best]

    @torch.no_grad()
    def candidates(
        self, context: Float[Tensor, "b s e"], proposals: int, behavior_mask: float, generator: torch.Generator
    ) -> tuple[Int[Tensor, "b k n"], Float[Tensor, "b k v"]]:
        """Whole actions drawn from the behaviour classifier, and the representations of their values.

        Args:
            context: windows of observation tokens.
            proposals: k, actions drawn for each.
            behavior_mask: bins to draw from, see `allowed`.
            generator: of the draws, on the CPU.
        """
        out, past = self.transformer(self.begin(context))  # what is seen is the same for all proposals
        out = out[:, -1:].repeat_interleave(proposals, 0)
        past = [kv.for_copies(proposals, self.num_dims - 1) for kv in past]
        drawn: list[Int[Tensor, "k 1"]] = []
        for i in range(self.num_dims):
            if drawn:
                out, past = self.transformer(self.action_embedding[i - 1, drawn[-1]], past)
            logits = self.policy_head(out, i)[..., 0]
            uniform = torch.rand(logits.shape, generator=generator).to(context.device)
            gumbel = -(-uniform.clamp_min(1e-20).log()).log()  # the largest sum with the logits is a draw from their softmax
            allowed = self.allowed(logits, behavior_mask, first_dim=i)
            drawn.append((logits + gumbel).masked_fill(~allowed, -torch.inf).argmax(-1))
        q_logits = self.q_head.at(out, drawn[-1][..., None], first_dim=self.num_dims - 1)[:, 0, 0]
        per_context = (len(context), proposals)
        return torch.cat(drawn, dim=1).unflatten(0, per_context), self.value_head.activate(q_logits).unflatten(0, per_context)
