"""The studies as data. A further arm is one more line; a further study one more entry of `STUDIES`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Data:
    """Episodes that `qtransformer collect` logs. Every training seed gets episodes of its own."""

    recipe: str
    episodes: int
    collect: tuple[str, ...] = ()
    """Further settings of `qtransformer collect`."""
    reading: tuple[str, ...] = ()
    """Options of the dataset, `reward_scale=100` say: the file stays the same."""

    def __str__(self) -> str:
        return ", ".join([self.recipe, f"{self.episodes} episodes", *self.collect, *self.reading])

    def file(self, seed: int) -> str:
        """Name of the logged episodes' file."""
        further = "".join(f"_{word.replace('=', '')}" for word in self.collect)
        return f"{self.recipe}_{self.episodes}{further}_{seed}.hdf5"

    def collect_arguments(self, seed: int, folder: Path, workers: int) -> list[str]:
        """Arguments of `qtransformer collect`."""
        own = [f"recipe={self.recipe}", f"episodes={self.episodes}", f"seed={seed}", f"workers={workers}"]
        return [f"out={folder / self.file(seed)}", *own, *self.collect]


PROBE_SEED = 900
"""Of the episodes that are probed on. No training has it, and all have the same ones."""


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
    probe: Data | None = None
    """Episodes of which every training's frozen features are asked what they know of the returns (`probing.py`)."""

    @property
    def probed_on(self) -> str | None:
        """Those episodes in words, as `probes.csv` has them."""
        return None if self.probe is None else f"{self.probe}, seed {PROBE_SEED}"


LOW = Data("low", 8000)
FULL = Data("full", 4000)
STITCHING = Data("stitching", 4000)
RECIPE = ("preset=grasp", "targets.surprise=0")
"""The default recipe, judged by its values as they were learned."""
BASE = (*RECIPE, "value.v_min=0.0", "value.v_max=1.0", "value.initial=0.05")
"""The same with the range of returns set by hand. Everything an arm does not name is as in it."""
SHORT = "steps=4000"
"""Where only the difference between arms is asked for: two thirds of the time, and `low` is learned by then (docs/log.md)."""
HEADS = {"hl_gauss": "HL-Gauss", "mse": "MSE", "two_hot": "Two-Hot", "c51": "C51"}
COMPARED = {
    "hl_gauss": ("HL-Gauss", ("value=hl_gauss",)),
    "mse": ("MSE", ("value=mse",)),
    "mse_tuned": ("MSE, cloning weighs .02", ("value=mse", "targets.behavior_weight=0.02")),
}
"""Classification and regression, all else equal and, for regression, at the weight of cloning that did best on validation objects
(HL-Gauss's best is the default)."""


def arm(name: str, label: str, *overrides: str, data: Data = LOW, seeds: int = 3, split: str = "test") -> Arm:
    """An arm that differs from the default recipe in `overrides`."""
    return Arm(name, label, (*BASE, *overrides), data, seeds, split)


def sweep(name: str, label: str, setting: str, values: Sequence[str], *overrides: str) -> list[Arm]:
    """Arms for choosing a setting: one seed each, judged on validation objects, on which no claim is made."""
    return [
        arm(f"{name}{value}", f"{label} {value}", *overrides, f"{setting}={value}", seeds=1, split="validation") for value in values
    ]


PUBLISHED = (
    "targets.backup=bellman",
    "targets.bootstrap=first",
    "targets.floor=sample",
    "targets.time_steps=1",
    "targets.conservative_weight=1",
    "targets.behavior_mask=0",
    "targets.proposals=0",
    "targets.discount=0.98",
)
"""Q-Transformer's own recipe: Eq. 1, the sample's return as a floor, Eq. 2 with alpha 1, greedy, no mask."""

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
        arm("q", "Q-Transformer, HL-Gauss", "targets.behavior_success_only=false", SHORT, data=STITCHING),
        arm("mc", "Monte-Carlo regression", "algo=mc", "targets.behavior_success_only=false", SHORT, data=STITCHING),
        arm("bc", "cloning of successes", "algo=bc", SHORT, data=STITCHING),
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
        arm("mse_tuned", COMPARED["mse_tuned"][0], *COMPARED["mse_tuned"][1], seeds=5),
        *(
            swept
            for head, label in HEADS.items()
            for swept in [
                *sweep(f"{head}_lr", f"{label}, learning rate", "optim.learning_rate", ("5e-4", "1e-3", "3e-3"), f"value={head}"),
                *sweep(f"{head}_alpha", f"{label}, alpha", "targets.conservative_weight", ("0.05", "0.3"), f"value={head}"),
                *sweep(
                    f"{head}_cloning", f"{label}, weight of cloning", "targets.behavior_weight", ("0.1", "0.02"), f"value={head}"
                ),
            ]
        ),
    ),
    (("hl_gauss", "mse"), ("hl_gauss", "mse_tuned"), ("hl_gauss", "two_hot"), ("hl_gauss", "c51")),
)

ABLATIONS = Study(
    "ablations",
    "Which parts of the recipe carry it?",
    (
        arm("ours", "the default recipe"),
        arm("published", "as published", *PUBLISHED),
        arm("published_afresh", "as published, no cloning first", *PUBLISHED, "cloning_steps=0"),
        arm("published_softmax", "as published, softmax conservatism", *PUBLISHED, "targets.conservative=logsumexp"),
        arm("published_no_floor", "as published, no floor", *PUBLISHED, "targets.floor=none"),
        arm("published_no_conservatism", "as published, no conservatism", *PUBLISHED, "targets.conservative_weight=0"),
        arm("no_floor", "no floor", "targets.floor=none"),
        arm("sample_floor", "floor of each sample", "targets.floor=sample"),
        arm("greedy", "greedy within the mask, no proposals", "targets.proposals=0"),
        arm("no_mask", "greedy, no mask, no proposals", "targets.behavior_mask=0", "targets.proposals=0"),
        arm("proposals4", "4 proposals", "targets.proposals=4"),
        arm("proposals8", "8 proposals", "targets.proposals=8"),
        arm("bootstrap1", "1 proposal in the bootstrap", "targets.bootstrap_proposals=1"),
        arm("bootstrap8", "8 proposals in the bootstrap", "targets.bootstrap_proposals=8"),
        arm("mask_all", "mask of all behaviour", "targets.behavior_success_only=false"),
        arm("no_eyes", "no cloning first", "cloning_steps=0"),
        arm("shorter", "4,000 steps", SHORT),
        arm("mirror", "mirrored", "optim.mirror=[dx,dyaw]"),
        arm("alpha", "alpha .05", "targets.conservative_weight=0.05"),
        arm("alpha_0.3", "alpha .3", "targets.conservative_weight=0.3"),
        arm("softmax", "softmax conservatism, alpha .05", "targets.conservative=logsumexp", "targets.conservative_weight=0.05"),
        arm("bellman", "Eq. 1's backup", "targets.backup=bellman"),
        arm("steps3", "3 steps before the bootstrap", "targets.time_steps=3"),
        arm("steps8", "8 steps before the bootstrap", "targets.time_steps=8"),
        arm("history", "history of 2", "model.history=2"),
        arm("memory", "remembers where it last closed", "model.remember=gripper_closed"),
        arm("surprise", "less of what has disappointed", "targets.surprise=0.3"),
        arm("bins9", "9 action bins", "model.action_bins=9"),
        arm("bins33", "33 action bins", "model.action_bins=33"),
        arm("atoms21", "21 value bins", "value.num_bins=21"),
        arm("atoms101", "101 value bins", "value.num_bins=101"),
        arm("sigma_narrow", "sigma of .25 bins", "value.sigma_ratio=0.25"),
        arm("sigma_wide", "sigma of 1.5 bins", "value.sigma_ratio=1.5"),
    ),
    (("memory", "ours"), ("surprise", "ours"), ("ours", "published"), ("ours", "no_floor"), ("ours", "no_mask")),
)

ETAS = (0.0, 0.1, 0.3, 1.0)

NOISE = Study(
    "noise",
    "Does regression suffer more than classification where rewards are noisy?",
    tuple(
        arm(
            f"{head}_{eta:g}",
            f"{label}, noise {eta:g}",
            *overrides,
            f"value.v_max={1 + eta:g}",  # the highest return there is
            data=replace(LOW, reading=(f"reward_noise={eta:g}",) if eta else ()),
        )
        for eta in ETAS
        for head, (label, overrides) in COMPARED.items()
    ),
    tuple((f"hl_gauss_{eta:g}", f"{other}_{eta:g}") for eta in ETAS for other in ("mse", "mse_tuned")),
)

EVALUATION = ("targets.bootstrap=logged", "targets.floor=none")

SARSA = Study(
    "sarsa",
    "Does the gap between classification and regression vanish where values are of a fixed policy?",
    tuple(
        arm(f"{policy}{head}", f"{label}, {whose}", *overrides, *evaluation)
        for policy, whose, evaluation in (("", "of the policy that acts", ()), ("behaviour_", "of the behaviour", EVALUATION))
        for head, (label, overrides) in COMPARED.items()
    ),
    tuple((f"{policy}hl_gauss", f"{policy}{other}") for policy in ("", "behaviour_") for other in ("mse", "mse_tuned")),
)

PROBE = Study(
    "probe",
    "Do features learned by classification tell more of returns than features learned by regression?",
    tuple(replace(arm, seeds=3) for arm in LOSSES.arms if arm.name in {*HEADS, *COMPARED}),
    probe=Data("low", 400, ("split=validation",)),
)

SCALES = (
    ("unit", "returns in [0, 1]", (), (0.0, 1.0, 0.05)),
    ("scaled", "rewards times 100", ("reward_scale=100",), (0.0, 100.0, 5.0)),
    # Without a larger reward for success, ending soon in whatever way would be best.
    ("cost", "20 for success, -1 a step", ("reward_scale=20", "step_reward=-1"), (-15.0, 19.0, -10.0)),
)
"""Name, what it says, how the dataset is read, and the range and initial value set by hand for it."""

ADAPTIVE = Study(
    "adaptive",
    "Does a range of values found from the data do as well as one that is set by hand?",
    tuple(
        Arm(f"{name}_{how}", f"{label}, {told}", (*RECIPE, SHORT, *overrides), replace(LOW, reading=reading))
        for name, label, reading, (low, high, initial) in SCALES
        for how, told, overrides in (
            ("hand", "range by hand", (f"value.v_min={low}", f"value.v_max={high}", f"value.initial={initial}")),
            ("auto", "automatic range", ()),
        )
    ),
    tuple((f"{name}_auto", f"{name}_hand") for name, *_ in SCALES),
)

STUDIES = {study.name: study for study in (BASELINES, LOSSES, ABLATIONS, STITCH, NOISE, SARSA, PROBE, ADAPTIVE)}
