"""The studies as data. A further arm is one more line; a further study, one more entry of `STUDIES`."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Data:
    """Episodes that `qtransformer collect` logs. Every training seed has a file of its own, of the same seed."""

    recipe: str
    episodes: int
    collect: tuple[str, ...] = ()
    """Further settings of `qtransformer collect`."""
    reward_noise: float = 0.0
    """Noise U(0, this) on the return of every episode; not part of the file."""

    def __str__(self) -> str:
        parts = [self.recipe, f"{self.episodes} episodes", *self.collect]
        return ", ".join(parts + ([f"reward noise {self.reward_noise:g}"] if self.reward_noise else []))


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of training."""

    name: str
    label: str
    overrides: tuple[str, ...]
    """Of `qtransformer train`."""
    data: Data
    seeds: int = 3
    """Training seeds 0, 1, ..."""
    split: str = "test"
    """Objects it is judged on: `validation` where the result chooses something, such as a learning rate."""


@dataclass(frozen=True, slots=True)
class Study:
    """A question, and the trainings that answer it."""

    name: str
    question: str
    arms: tuple[Arm, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    """Arms whose difference is reported."""


LOW = Data("low", 8000)
FULL = Data("full", 6000)
STITCHING = Data("stitching", 4000)
BASE: tuple[str, ...] = ("preset=demo", "cloning_steps=1000", "steps=3500", "targets.time_steps=3", "optim.learning_rate=1.5e-3")
"""The recipe that everything is compared with: what an arm does not name is as in it. The one place to change it."""
HEADS = {"hl_gauss": "HL-Gauss", "mse": "MSE", "two_hot": "Two-Hot", "c51": "C51"}


def arm(name: str, label: str, *overrides: str, data: Data = LOW, seeds: int = 3, split: str = "test") -> Arm:
    """An arm that differs from `BASE` in `overrides`."""
    return Arm(name, label, (*BASE, *overrides), data, seeds, split)


def sweep(name: str, label: str, setting: str, values: Sequence[str], *overrides: str) -> list[Arm]:
    """Arms for choosing a setting: one seed each, judged on validation objects, which no claim is made on."""
    return [
        arm(f"{name}_{value}", f"{label} {value}", f"{setting}={value}", *overrides, seeds=1, split="validation")
        for value in values
    ]


BASELINES = Study(
    "baselines",
    "Does Q-learning beat imitation and regression to returns where most data fail?",
    (
        arm("q", "Q-Transformer", seeds=5),
        arm("mc", "Monte-Carlo regression", "algo=mc", seeds=5),
        arm("bc", "cloning of successes", "algo=bc", seeds=5),
        arm("bc_all", "cloning of everything", "algo=bc", "bc_filter_success=false", seeds=5),
        arm("q_full", "Q-Transformer, unbiased noise", data=FULL),
        arm("bc_full", "cloning of successes, unbiased noise", "algo=bc", data=FULL),
    ),
    (("q", "bc"), ("q", "mc"), ("q", "bc_all"), ("q_full", "bc_full")),
)

LOSSES = Study(
    "losses",
    "Do values learned by classification make better policies than values learned by regression?",
    (
        *(arm(head, label, f"value={head}", seeds=5 if head in ("hl_gauss", "mse") else 3) for head, label in HEADS.items()),
        *(
            swept
            for head, label in HEADS.items()
            for swept in [
                *sweep(f"{head}_rate", f"{label}, learning rate", "optim.learning_rate", ("5e-4", "1e-3", "3e-3"), f"value={head}"),
                *sweep(f"{head}_alpha", f"{label}, alpha", "targets.conservative_weight", ("0.05", "0.3"), f"value={head}"),
            ]
        ),
    ),
    (("hl_gauss", "mse"), ("hl_gauss", "two_hot"), ("hl_gauss", "c51")),
)

PUBLISHED = (
    "targets.backup=bellman",
    "targets.bootstrap=first",
    "targets.time_steps=1",
    "targets.floor=sample",
    "targets.conservative=squared",
    "targets.conservative_weight=1",
    "targets.behavior_mask=0",
    "targets.discount=0.98",
    "cloning_steps=0",
)
"""Q-Transformer's own recipe: Eq. 1 with the sample's return as floor, Eq. 2 with alpha 1, no mask, no cloning first."""

ABLATIONS = Study(
    "ablations",
    "Which parts carry the recipe, and what does the published one do on the same data?",
    (
        arm("ours", "ours"),
        arm("published", "published recipe", *PUBLISHED),
        arm("published_softmax", "published, softmax conservatism", *PUBLISHED, "targets.conservative=logsumexp"),
        arm("published_no_floor", "published, no floor", *PUBLISHED, "targets.floor=none"),
        arm("published_no_conservatism", "published, no conservatism", *PUBLISHED, "targets.conservative_weight=0"),
        arm("no_floor", "no floor", "targets.floor=none"),
        arm("sample_floor", "the sample's return as floor", "targets.floor=sample"),
        arm("no_mask", "no behaviour mask", "targets.behavior_mask=0"),
        arm("no_cloning", "no cloning first", "cloning_steps=0"),
        arm("alpha_0", "conservative weight 0", "targets.conservative_weight=0"),
        arm("alpha_0.05", "conservative weight .05", "targets.conservative_weight=0.05"),
        arm("alpha_0.3", "conservative weight .3", "targets.conservative_weight=0.3"),
        arm("alpha_1", "conservative weight 1", "targets.conservative_weight=1"),
        arm("softmax", "softmax conservatism", "targets.conservative=logsumexp", "targets.conservative_weight=0.05"),
        arm("bellman", "backup through every dimension", "targets.backup=bellman"),
        arm("one_step", "bootstrap after 1 step", "targets.time_steps=1"),
        arm("eight_steps", "bootstrap after 8 steps", "targets.time_steps=8"),
        arm("history", "2 frames", "model.history=2"),
        arm("action_bins_9", "9 action bins", "model.action_bins=9"),
        arm("action_bins_33", "33 action bins", "model.action_bins=33"),
        arm("value_bins_21", "21 value bins", "value.num_bins=21"),
        arm("value_bins_101", "101 value bins", "value.num_bins=101"),
        arm("sigma_0.25", "sigma of .25 bins", "value.sigma_ratio=0.25"),
        arm("sigma_1.5", "sigma of 1.5 bins", "value.sigma_ratio=1.5"),
    ),
    (("ours", "published"), ("ours", "no_floor"), ("ours", "no_mask"), ("ours", "bellman")),
)

STITCH = Study(
    "stitching",
    "Does the bootstrap find a route that no successful episode took?",
    (
        arm("q", "Q-Transformer", "targets.behavior_success_only=false", data=STITCHING),
        arm("mc", "Monte-Carlo regression", "algo=mc", "targets.behavior_success_only=false", data=STITCHING),
        arm("bc", "cloning of successes", "algo=bc", data=STITCHING),
    ),
    (("q", "mc"), ("q", "bc")),
)

NOISE = Study(
    "noise",
    "Does regression suffer more than classification from rewards that are noisy?",
    tuple(
        arm(
            f"{head}_{eta:g}",
            f"{HEADS[head]}, noise {eta:g}",
            f"value={head}",
            f"value.v_max={1 + eta:g}",
            data=Data("low", 8000, reward_noise=eta),
        )
        for eta in (0.0, 0.1, 0.3, 1.0)
        for head in ("hl_gauss", "mse")
    ),
    tuple((f"hl_gauss_{eta:g}", f"mse_{eta:g}") for eta in (0.0, 0.1, 0.3, 1.0)),
)

STUDIES = {study.name: study for study in (BASELINES, LOSSES, ABLATIONS, STITCH, NOISE)}
