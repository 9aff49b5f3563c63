"""The studies as data. A further arm is one more line; a further study one more entry of `STUDIES`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Data:
    """Episodes that `qtransformer collect` logs. Every training seed gets episodes of its own."""

    recipe: str
    episodes: int

    def __str__(self) -> str:
        return f"{self.recipe}, {self.episodes} episodes"


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
    """Objects it is judged on: `validation` for what is chosen by the result."""


@dataclass(frozen=True, slots=True)
class Study:
    """A question, and the trainings that answer it."""

    name: str
    question: str
    arms: tuple[Arm, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    """Arms whose difference is reported."""


LOW = Data("low", 8000)
FULL = Data("full", 4000)
STITCHING = Data("stitching", 4000)
BASE = ("preset=grasp",)
"""The default recipe. Everything an arm does not name is as in it."""


def arm(name: str, label: str, *overrides: str, data: Data = LOW, seeds: int = 3, split: str = "test") -> Arm:
    """An arm that differs from the default recipe in `overrides`."""
    return Arm(name, label, (*BASE, *overrides), data, seeds, split)


PUBLISHED = (
    "targets.backup=bellman",
    "targets.bootstrap=first",
    "targets.floor=sample",
    "targets.time_steps=1",
    "targets.conservative_weight=1",
    "targets.behavior_mask=0",
    "targets.behavior_prior=0",
    "targets.discount=0.98",
)
"""Q-Transformer's own recipe: Eq. 1, the sample's return as a floor, Eq. 2 with alpha 1, no mask."""

BASELINES = Study(
    "baselines",
    "Does Q-learning beat imitation and regression to returns where most data fail?",
    (
        arm("q", "Q-Transformer, HL-Gauss", seeds=5),
        arm("bc", "cloning of successes", "algo=bc", seeds=5),
        arm("mc", "Monte-Carlo regression", "algo=mc", seeds=5),
        arm("bc_all", "cloning of everything", "algo=bc", "bc_filter_success=false", "targets.behavior_success_only=false"),
        arm("q_full", "Q-Transformer, unbiased data", data=FULL),
        arm("bc_full", "cloning of successes, unbiased data", "algo=bc", data=FULL),
    ),
    (("q", "bc"), ("q", "bc_all"), ("q", "mc"), ("q_full", "bc_full")),
)

STITCH = Study(
    "stitching",
    "Does the bootstrap find a route that no successful episode took?",
    (
        arm("q", "Q-Transformer, HL-Gauss", "targets.behavior_success_only=false", data=STITCHING),
        arm("mc", "Monte-Carlo regression", "algo=mc", "targets.behavior_success_only=false", data=STITCHING),
        arm("bc", "cloning of successes", "algo=bc", data=STITCHING),
    ),
    (("q", "mc"), ("q", "bc")),
)

LOSSES = Study(
    "losses",
    "Do values learned by classification lead to better policies than values learned by regression?",
    (
        arm("hl_gauss", "HL-Gauss", seeds=5),
        arm("mse", "MSE", "value=mse", seeds=5),
        arm("two_hot", "Two-Hot", "value=two_hot"),
        arm("c51", "C51", "value=c51"),
        *(
            arm(
                f"{head}_lr{rate}",
                f"{head}, learning rate {rate}",
                f"value={head}",
                f"optim.learning_rate={rate}",
                seeds=1,
                split="validation",
            )
            for head in ("hl_gauss", "mse")
            for rate in ("5e-4", "1e-3", "3e-3")
        ),
        *(
            arm(
                f"{head}_alpha{alpha}",
                f"{head}, alpha {alpha}",
                f"value={head}",
                f"targets.conservative_weight={alpha}",
                seeds=1,
                split="validation",
            )
            for head in ("hl_gauss", "mse")
            for alpha in ("0.05", "0.3")
        ),
    ),
    (("hl_gauss", "mse"), ("hl_gauss", "two_hot"), ("hl_gauss", "c51")),
)

ABLATIONS = Study(
    "ablations",
    "Which parts of the recipe carry it?",
    (
        arm("ours", "the default recipe"),
        arm("published", "as published", *PUBLISHED),
        arm("published_softmax", "as published, softmax conservatism", *PUBLISHED, "targets.conservative=logsumexp"),
        arm("published_no_floor", "as published, no floor", *PUBLISHED, "targets.floor=none"),
        arm("published_no_conservatism", "as published, no conservatism", *PUBLISHED, "targets.conservative_weight=0"),
        arm("no_floor", "no floor", "targets.floor=none"),
        arm("sample_floor", "floor of each sample", "targets.floor=sample"),
        arm("no_mask", "no behaviour mask", "targets.behavior_mask=0", "targets.behavior_prior=0"),
        arm("mask_all", "mask of all behaviour", "targets.behavior_success_only=false"),
        arm("no_eyes", "no cloning first", "cloning_steps=0"),
        arm("no_mirror", "no mirror", "optim.mirror=[]"),
        arm("alpha", "alpha .05", "targets.conservative_weight=0.05"),
        arm("bellman", "Eq. 1's backup", "targets.backup=bellman"),
        arm("steps1", "1 step before the bootstrap", "targets.time_steps=1"),
        arm("steps8", "8 steps before the bootstrap", "targets.time_steps=8"),
        arm("history", "history of 2", "model.history=2"),
        arm("bins9", "9 action bins", "model.action_bins=9"),
        arm("bins33", "33 action bins", "model.action_bins=33"),
        arm("atoms21", "21 value bins", "value.num_bins=21"),
        arm("atoms101", "101 value bins", "value.num_bins=101"),
        arm("sigma_narrow", "sigma of .25 bins", "value.sigma_ratio=0.25"),
        arm("sigma_wide", "sigma of 1.5 bins", "value.sigma_ratio=1.5"),
    ),
    (("ours", "published"), ("ours", "no_floor"), ("ours", "no_mask")),
)

STUDIES = {study.name: study for study in (BASELINES, STITCH, LOSSES, ABLATIONS)}
