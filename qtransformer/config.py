"""Every setting of a training, as plain dataclasses. Hydra composes them (`conf/` holds overlays); nothing mutates them.

Each constructor of the project gets only its own part. Enums, not strings, so that a typo is refused before anything runs.
"""

import math
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import Enum
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from qtransformer.errors import ConfigError


class Algo(Enum):
    """What is learned on the trunk."""

    q = "q"
    """Q-learning: bootstrapped targets."""
    mc = "mc"
    """Regression of Q to the Monte-Carlo return, a baseline without bootstrapping."""
    bc = "bc"
    """Behaviour cloning: a classifier of the logged bins, a baseline without values."""


class ValueKind(Enum):
    hl_gauss = "hl_gauss"
    two_hot = "two_hot"
    c51 = "c51"
    mse = "mse"


class EncoderKind(Enum):
    conv = "conv"
    """Three convolutions: trains on a CPU in minutes."""
    resnet18 = "resnet18"
    """ResNet-18 with group normalisation."""


class Backup(Enum):
    """Where the target of an action dimension comes from."""

    bellman = "bellman"
    """Dimension i < n from the maximum of dimension i + 1, the last from the next state (Q-Transformer, Eq. 1)."""
    n_step = "n_step"
    """Every dimension straight from the next state: n times fewer backups in a chain (Q-Transformer, section 4.3)."""


class Bootstrap(Enum):
    """What stands for the value of the next state."""

    first = "first"
    """The maximum over the first dimension's bins (Q-Transformer, Eq. 1)."""
    chain = "chain"
    """The last dimension's value at the greedy chain of all dimensions: what the greedy policy would really do there."""
    logged = "logged"
    """The last dimension's value at the logged action: judges the behaviour instead of improving on it (SARSA). With
    `Backup.n_step` alone."""


class Floor(Enum):
    """Lower bound of bootstrapped targets."""

    none = "none"
    sample = "sample"
    """The sample's own Monte-Carlo return (Q-Transformer, section 4.2): inflated where outcomes are stochastic. Where a time limit
    cut an episode short and rewards may be negative, the worst reward is taken to follow for ever: the log bounds nothing."""
    learned = "learned"
    """A regression of Monte-Carlo returns on the same trunk: the behaviour's expected return."""


class Conservative(Enum):
    """How values of bins that were not taken are pushed down."""

    squared = "squared"
    """Half the squared distance to the lowest attainable return (Q-Transformer, Eq. 2)."""
    cross_entropy = "cross_entropy"
    """The head's own loss towards the lowest attainable return."""
    logsumexp = "logsumexp"
    """CQL's softmax regulariser, which the paper compares with."""


class Precision(Enum):
    """What frames (images, proprioception, instruction) become tokens in while learning; all that follows, and all of acting, is
    in float32."""

    auto = "auto"
    """bfloat16 where the processor or GPU computes in it, else float32."""
    float32 = "float32"
    bfloat16 = "bfloat16"


class Balance(Enum):
    """Between which groups of episodes the steps drawn are shared equally."""

    none = "none"
    """Every step is drawn equally often."""
    success = "success"
    """Successes and failures."""
    source = "source"
    """The files of `dataset`."""
    instruction = "instruction"


class Cache(Enum):
    """Whether decoded frames are kept on disk and memory-mapped."""

    auto = "auto"
    """Of videos, and where images exceed `data.memory_gb`."""
    always = "always"
    never = "never"
    """Everything is read into memory at each start."""


MOST_PROPOSALS = 4096
"""Whole actions that are drawn and valued at once: more would fill the memory of the machine that acts."""


def require_positive(config: Any, group: str, but: tuple[str, ...] = ()) -> None:
    """All whole numbers of `config` count something that there must be at least one of, `but` some that may be 0. All others are
    finite."""
    for f in fields(config):
        value, least = getattr(config, f.name), 0 if f.name in but else 1
        if type(value) is int and value < least:
            raise ConfigError(f"{group}{f.name}={value} must be at least {least}; {_default_of(config, f.name)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{group}{f.name}={value} must be a finite number; {_default_of(config, f.name)}")


def require_at_least_0(config: Any, group: str, names: tuple[str, ...]) -> None:
    """These settings are weights, sizes or rates."""
    for name in names:
        if getattr(config, name) < 0:
            raise ConfigError(f"{group}{name}={getattr(config, name)} must be at least 0; {_default_of(config, name)}")


def _default_of(config: Any, name: str) -> str:
    """What a refused setting may go back to."""
    value = next(f.default for f in fields(config) if f.name == name)
    return f"the default is {'null' if value is None else value}"


def _next_multiple(number: int, of: int) -> int:
    return -(-number // of) * of


@dataclass(kw_only=True, slots=True)
class ValueConfig:
    kind: ValueKind = ValueKind.hl_gauss
    """How a return is represented."""
    v_min: float | None = None
    """Lowest attainable return; null takes it from the data and lowers it where bootstrapped targets fall below."""
    v_max: float | None = None
    """Highest attainable return; null takes it from the data and raises it where bootstrapped targets exceed it."""
    num_bins: int = 51
    """Value bins of categorical heads (of the padded support for HL-Gauss)."""
    sigma_ratio: float = 0.75
    """HL-Gauss: sigma as a multiple of the bin width, so that it follows the range."""
    initial: float | None = None
    """Value a fresh network predicts everywhere; null is near the low end and, where the range comes from the data, not above their
    mean return, since learning that starts from over-estimation fails."""

    def __post_init__(self) -> None:
        require_positive(self, "value.")


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    encoder: EncoderKind = EncoderKind.conv
    """Image encoder."""
    encoder_width: int = 32
    """Channels of the encoder's first stage; later stages have multiples of it."""
    embed_dim: int = 128
    """Width of the transformer."""
    num_layers: int = 2
    """Transformer blocks."""
    num_heads: int = 4
    """Attention heads per block."""
    ff_dim: int = 256
    """Hidden width of a block's feed-forward part."""
    tokens_per_image: int = 8
    """Tokens TokenLearner condenses an image into."""
    history: int = 1
    """Frames the network sees, the present one included."""
    remember: str = ""
    """Name of a proprioceptive value, `gripper_closed` say: what was felt the last two times it rose above its mean is kept to the
    end of the episode (`memory.py`). Empty remembers nothing."""
    action_bins: int = 17
    """Bins of every continuous action dimension; switches have one per value."""
    head_dim: int = 64
    """Hidden width of the output heads, shared by all bins."""

    def __post_init__(self) -> None:
        require_positive(self, "model.")
        if self.embed_dim % self.num_heads:
            raise ConfigError(
                f"model.embed_dim={self.embed_dim} must be a multiple of model.num_heads={self.num_heads}; "
                f"{_next_multiple(self.embed_dim, self.num_heads)}, say"
            )
        if self.encoder is EncoderKind.resnet18 and self.encoder_width % 8:
            raise ConfigError(
                f"model.encoder_width={self.encoder_width} must be a multiple of 8, ResNet-18's groups of channels; "
                f"{_next_multiple(self.encoder_width, 8)}, say"
            )


@dataclass(kw_only=True, slots=True)
class TargetConfig:
    discount: float = 0.98
    """Discount per environment step (1 between the dimensions of one action)."""
    backup: Backup = Backup.n_step
    """Where the target of each dimension comes from."""
    bootstrap: Bootstrap = Bootstrap.chain
    """What stands for the next state's value."""
    time_steps: int = 1
    """Rewards summed before bootstrapping (n-step over time)."""
    floor: Floor = Floor.learned
    """Lower bound of the targets."""
    conservative: Conservative = Conservative.squared
    """How unseen bins are pushed down."""
    conservative_weight: float = 0.05
    """Weight alpha of the conservative term; 0 switches it off."""
    conservative_bins: int = 32
    """Unseen bins of a dimension that are pushed down at each step: a draw where more exist (`logsumexp` takes all)."""
    behavior_mask: float = 0.3
    """Act only on bins that the behaviour takes at least this share as often as its likeliest one; 0 switches it off."""
    proposals: int = 0
    """Act by the most valuable of this many whole actions drawn from the behaviour classifier, within the mask; 0 maximises one
    dimension after the other (the paper)."""
    bootstrap_proposals: int | None = None
    """How many for the bootstrap, where `proposals` hold there; null: as many. Fewer make a step cheaper."""
    surprise: float = 0.0
    """When acting by proposals, expect less of what has disappointed before in the same episode: width of the Gaussian kernel over
    (state, action) within which earlier disappointments count (`surprise.py`); 0 switches it off. Learning stays as it is."""
    mask_bootstrap: bool = True
    """Whether mask and proposals hold for the bootstrap as well as for acting."""
    behavior_weight: float = 1.0
    """Weight of the behaviour classifier's loss that the mask needs."""
    behavior_success_only: bool = False
    """The behaviour classifier learns from successful episodes alone, so that the mask keeps to what has worked. Cloning
    (algo=bc, cloning_steps) teaches the same classifier, so it then imitates successes alone whatever bc_filter_success says."""
    target_rate: float = 0.05
    """Share of the online weights that enters the target network at each step (1 - EMA decay)."""

    def __post_init__(self) -> None:
        require_positive(self, "targets.", but=("proposals",))
        require_at_least_0(self, "targets.", ("conservative_weight", "behavior_weight"))
        for name in ("proposals", "bootstrap_proposals"):
            if (getattr(self, name) or 0) > MOST_PROPOSALS:
                raise ConfigError(
                    f"targets.{name}={getattr(self, name)} must be at most {MOST_PROPOSALS}; {_default_of(self, name)}"
                )
        for name in ("discount", "behavior_mask", "target_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"targets.{name}={getattr(self, name)} must lie between 0 and 1; {_default_of(self, name)}")
        if self.target_rate == 0:
            raise ConfigError("targets.target_rate=0 would bootstrap from the untrained network for ever; .05, say")
        if self.bootstrap is Bootstrap.logged and self.backup is Backup.bellman:
            raise ConfigError(
                "targets.bootstrap=logged judges the behaviour, expected targets.backup=n_step with it, found bellman, which "
                "maximises over all dimensions but the first; set backup=n_step, or bootstrap=chain or first to improve on it"
            )
        if self.behavior_mask > 0 and self.behavior_weight == 0:
            raise ConfigError(
                f"targets.behavior_mask={self.behavior_mask} asks a classifier that targets.behavior_weight=0 never trains; give "
                "it a weight, or set behavior_mask=0"
            )
        if self.behavior_mask == 0 and self.proposals:
            raise ConfigError(
                f"targets.proposals={self.proposals} needs the behaviour classifier, which is learned only for a mask, found "
                "behavior_mask=0; set a small one, .01 say"
            )
        if self.surprise < 0 or (self.surprise and not self.proposals):
            raise ConfigError(
                f"targets.surprise={self.surprise} must be at least 0, and chooses among proposals, found targets.proposals="
                f"{self.proposals}; set them, 8 say, or surprise=0"
            )


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    warmup_steps: int = 100
    """Linear warm-up; a cosine decay to a tenth follows."""
    weight_decay: float = 1e-4
    """Decoupled weight decay of matrices and convolutions."""
    clip_norm: float = 1.0
    """Gradient norm above which a step is scaled down."""
    precision: Precision = Precision.auto
    """What frames are encoded in while learning: bfloat16 makes a step about 1.3 times faster where hardware has it."""
    batch_segments: int = 16
    """Segments per batch."""
    segment_steps: int = 8
    """Consecutive steps per segment: a batch has batch_segments * segment_steps transitions."""
    max_shift: int = 1
    """Random shift of a segment's images [pixel]; 0 switches it off."""
    mirror: list[str] = field(default_factory=list)
    """Action dimensions, [dx,dyaw] say, that change sign in a mirror: half of the segments are flipped left to right with them.
    Twice the data, where cameras and gripper are symmetric about the images' vertical axis. Proprioception stays as it is."""
    color_jitter: float = 0.2
    """Random scale and offset of a segment's colour channels, as a share of the half range; 0 switches it off."""
    proprio_noise: float = 0.1
    """Noise added to proprioception, in its standard deviations: without it, joint angles identify the episode and its outcome."""

    def __post_init__(self) -> None:
        require_positive(self, "optim.", but=("warmup_steps", "max_shift"))
        require_at_least_0(self, "optim.", ("learning_rate", "weight_decay", "color_jitter", "proprio_noise"))
        if self.clip_norm <= 0:
            raise ConfigError(
                f"optim.clip_norm={self.clip_norm} must be above 0: gradients are scaled down to it; "
                f"{_default_of(self, 'clip_norm')}"
            )


@dataclass(kw_only=True, slots=True)
class DataConfig:
    balance: Balance = Balance.none
    """Draw as many steps from each: `success` (and failure), `source`, `instruction`; `none` draws all steps equally often."""
    cache: Cache = Cache.auto
    """Keep decoded frames on disk and map them: `auto` for videos and what memory_gb has no room for, `always`, `never`."""
    memory_gb: float = 0.0
    """Images [GB] that cache=auto still holds in memory; 0 takes a quarter of the machine's."""

    def __post_init__(self) -> None:
        require_positive(self, "data.")
        require_at_least_0(self, "data.", ("memory_gb",))


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    algo: Algo = Algo.q
    """What is learned on the trunk."""
    steps: int = 3000
    """Gradient steps."""
    cloning_steps: int = 0
    """Of these, steps of cloning before values are learned: eyes first, value targets alone are too noisy to learn to see from."""
    seed: int = 0
    """Seed of initialisation, sampling and augmentation."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`."""
    threads: int = 0
    """CPU threads of this training; 0 leaves PyTorch's default."""
    init: str = ""
    """Run or checkpoint directory to start fine-tuning from; empty starts afresh."""
    bc_filter_success: bool = True
    """Cloning (algo=bc, cloning_steps) draws from successful episodes alone. To imitate failures too, set it to false and
    targets.behavior_success_only as well (true in the presets demo and grasp), which leaves them out of the loss."""
    log_every: int = 50
    """Steps between two lines of metrics.jsonl."""
    save_every: int = 500
    """Steps between two checkpoints."""
    keep_checkpoints: int = 5
    """Newest checkpoints kept beside the best; 0 keeps all."""
    eval_episodes: int = 0
    """Validation episodes at every checkpoint, to choose the best one by: the newest within a standard error of the highest before
    it. 0 never evaluates, and the last one counts."""
    value: ValueConfig = field(default_factory=ValueConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    targets: TargetConfig = field(default_factory=TargetConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        require_positive(self, "", but=("cloning_steps", "seed", "threads", "keep_checkpoints", "eval_episodes"))
        if self.seed >= 2**63:
            raise ConfigError(f"seed={self.seed} must be below 2**63: PyTorch's generators take no larger one")
        if self.algo is not Algo.bc and self.cloning_steps >= self.steps:
            raise ConfigError(
                f"cloning_steps={self.cloning_steps} of steps={self.steps} leave none to learn values in; raise steps above "
                f"{self.cloning_steps}, lower cloning_steps, or clone alone with algo=bc"
            )

    def clones_at(self, step: int) -> bool:
        """Whether gradient step `step` (from 0) imitates and leaves values alone."""
        return self.algo is Algo.bc or step < self.cloning_steps

    @property
    def learns_behavior(self) -> bool:
        """Whether the behaviour classifier is trained at any step. One that is in `cloning_steps` alone reads a trunk that moves on
        afterwards; how well, its likelihood tells."""
        return self.clones_at(0) or self.targets.behavior_mask > 0


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as JSON-able data, enums by their value."""

    def plain(value: Any) -> Any:
        if isinstance(value, Enum):
            return value.value
        return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value

    return plain(asdict(config))


def from_dict(cls: Any, data: Any, where: str = "config") -> Any:
    """The inverse of `to_dict`. Builds exactly the dataclass `cls`: nothing in a file chooses what is constructed."""
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected a mapping for {cls.__name__}, found {type(data).__name__}")
    hints = get_type_hints(cls)
    unknown = sorted(set(data) - {f.name for f in fields(cls)})
    if unknown:
        raise ConfigError(f"{where}: unknown setting(s) {', '.join(unknown)}; {cls.__name__} has {', '.join(hints)}")
    return cls(**{name: _parse(hints[name], value, f"{where}.{name}") for name, value in data.items()})


def _parse(kind: Any, value: Any, where: str) -> Any:
    if is_dataclass(kind):
        return from_dict(kind, value, where)
    if isinstance(kind, UnionType):
        return None if value is None else _parse(get_args(kind)[0], value, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        names = [k.value for k in kind]
        if value not in names:
            raise ConfigError(f"{where}: expected one of {', '.join(names)}, found {value!r}")
        return kind(value)
    if get_origin(kind) is list:
        if not isinstance(value, list):
            raise ConfigError(f"{where}: expected a list, found {value!r}")
        return [_parse(get_args(kind)[0], item, where) for item in value]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"{where}: expected {kind.__name__}, found {value!r}")
    return value
