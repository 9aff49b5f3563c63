"""The settings of every verb but `data ...`, whose are in `data_settings`.

Defaults and the lines under the fields are what `qtransformer VERB --help` prints.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from qtransformer.acting import ActingConfig
from qtransformer.config import TrainConfig, require_positive


class Split(Enum):
    train = "train"
    validation = "validation"
    test = "test"


class ActorKind(Enum):
    policy = "policy"
    """The trained network of `run`."""
    expert = "expert"
    """The simulator's scripted expert, which sees the objects' poses."""
    random = "random"
    """Uniform over the action limits."""


@dataclass(kw_only=True, slots=True)
class CollectSettings:
    """Let a noisy expert act in the simulator and log its episodes to robomimic HDF5. Run again after a kill, it goes on."""

    out: str = MISSING
    """File to write."""
    episodes: int = 3000
    """Episodes to log."""
    recipe: str = "demo"
    """Who acts how often: a recipe of the simulator (demo, low, full, stitching, expert)."""
    seed: int = 0
    """Episode i follows from this seed and i alone, whatever the number of workers."""
    task: str = "grasp"
    """What is asked of the arm."""
    arm: str = "kuka"
    """Which arm."""
    cameras: list[str] = field(default_factory=lambda: ["wrist"])
    """Cameras to log."""
    image_size: int = 64
    """Height and width of every camera's images [pixel]."""
    num_objects: int = 3
    """Objects on the table."""
    max_steps: int = 24
    """Control steps after which an episode is truncated."""
    control_hz: float = 4.0
    """Control steps per second [Hz]."""
    split: Split = Split.train
    """Which objects."""
    workers: int = 0
    """Processes; 0 takes every core."""
    dry_run: bool = False
    """Print the plan and stop."""


@dataclass(kw_only=True, slots=True)
class TrainSettings(TrainConfig):
    """Train a Q-Transformer (or a baseline on the same trunk) on logged episodes."""

    dataset: Any = MISSING
    """Path, {path:a.hdf5,dones:terminated}, or a list of either. Keys beside path: format, weight, cameras, image_size, success,
    rewards, and the options of the format's reader."""
    run: str = MISSING
    """Directory of the run."""
    dry_run: bool = False
    """Print the plan and stop."""


@dataclass(kw_only=True, slots=True)
class ResumeSettings:
    """Go on with a training that was stopped or killed, exactly as if it had not been."""

    run: str = MISSING
    """Directory of the run."""
    dry_run: bool = False
    """Print the plan and stop."""


@dataclass(kw_only=True, slots=True)
class EvalSettings:
    """Count how often an actor succeeds, on the same scenes for all; with dataset=... judge checkpoints from logs alone."""

    run: Any = ""
    """Run or checkpoint directory; may be left out for actor=expert and actor=random. With dataset=... also a list: [a,b]."""
    dataset: Any = ""
    """Held-out episodes to judge checkpoints from, successes and failures, said as for `train`. No simulator is needed."""
    critic_data: Any = ""
    """With dataset=...: episodes that the independent critic learns from, more than are held out; empty takes `dataset`."""
    critic_steps: int = 1200
    """With dataset=...: gradient steps of the independent critic."""
    fqe_steps: int = 200
    """With dataset=...: gradient steps of fitted Q evaluation for every checkpoint; 0 leaves it and the critic out."""
    select: bool = False
    """With dataset=...: make the best checkpoint of every run its best (best.json), which eval then takes."""
    actor: ActorKind = ActorKind.policy
    """Who acts."""
    episodes: int = 200
    """Episodes to act."""
    seed: int = 1000
    """Episode i is scene seed + i."""
    split: Split = Split.test
    """Which objects; `test` and `validation` hold none that were trained on."""
    env: str = ""
    """Another Gymnasium environment with action_spec and observation_spec, as package.module:function."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the environment, over those it was trained in: {num_objects: 5}."""
    json: str = ""
    """File for the result: success, low, high, episodes, seconds, how it acted, and every episode; with dataset=... all scores."""
    videos: int = 0
    """Episodes to film into videos/ of the run."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`."""
    workers: int = 0
    """Processes; 0 takes every core."""
    dry_run: bool = False
    """Print the plan and stop."""
    acting: ActingConfig = field(default_factory=ActingConfig)
    """How the policy of `run` acts, where not as trained."""

    def __post_init__(self) -> None:
        require_positive(self, "", but=("fqe_steps", "seed", "videos", "workers"))


@dataclass(kw_only=True, slots=True)
class ReportSettings:
    """Write report.html of a run: curves, values, timing, settings, and its evaluations and videos as far as there are any."""

    run: str = MISSING
    """Directory of the run. `eval json=RUN/evaluations/qtransformer.json videos=3` adds how it acts, `actor=expert
    json=RUN/evaluations/expert.json` what to compare with; a training that still runs may be looked at, too."""


@dataclass(kw_only=True, slots=True)
class StudySettings:
    """Run a grid of trainings over seeds and report it: `study baselines`. Finished cells are never run again; killed go on."""

    name: str = MISSING
    """Which study: baselines, losses, ablations, stitching, noise, sarsa, probe, adaptive."""
    arms: list[str] = field(default_factory=list)
    """Only these arms; `dry_run=true` lists them."""
    seeds: Any = 0
    """Training seeds of every arm, as a number or a list; 0 takes the study's own. Each has data of its own."""
    episodes: int = 300
    """Scenes a policy is judged on."""
    first_scene: int = 100000
    """Seed of the first of them."""
    out: str = "docs/studies"
    """Folder of results, tables and plots."""
    runs: str = "runs/studies"
    """Folder of the trainings."""
    data: str = "data/studies"
    """Folder of the logged episodes; collected where they are missing."""
    workers: int = 0
    """Cells at a time; 0 takes one for every core, or for every GPU."""
    device: str = "cpu"
    """Of all trainings: `cpu`, or `cuda`, which spreads the workers over all GPUs."""
    report_only: bool = False
    """Write tables, plots and page from the results there are."""
    dry_run: bool = False
    """Print the plan, with an estimate of the time, and stop."""

    def __post_init__(self) -> None:
        require_positive(self, "", but=("seeds", "first_scene", "workers"))


@dataclass(kw_only=True, slots=True)
class CalibrateSettings:
    """Find the Q-value below which a policy should stop and ask, and measure on other objects what that costs and catches."""

    run: str = MISSING
    """Run or checkpoint directory."""
    false_stops: float = 0.05
    """Share of successful episodes that may be stopped."""
    episodes: int = 300
    """Episodes to calibrate on (validation objects), and as many to measure on (test objects)."""
    seed: int = 700000
    """Episode i is scene seed + i."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`."""
    workers: int = 0
    """Processes; 0 takes every core."""
    dry_run: bool = False
    """Print the plan and stop."""
    acting: ActingConfig = field(default_factory=ActingConfig)
    """How the policy acts, where not as trained. A threshold holds for this way of acting alone."""

    def __post_init__(self) -> None:
        require_positive(self, "", but=("seed", "workers"))


@dataclass(kw_only=True, slots=True)
class RosDemoSettings:
    """Let a policy act as a ROS 2 node on the simulated arm, record it, make a dataset of it, and compare with `eval`."""

    run: str = "runs/demo"
    """Run or checkpoint directory."""
    episodes: int = 50
    """Episodes to act."""
    seed: int = 1000
    """Episode i is scene seed + i."""
    split: Split = Split.test
    """Which objects."""
    contract: str = ""
    """Topic contract of the simulated arm; empty takes the one that comes with the project."""
    out: str = ""
    """Folder of bags/, episodes.hdf5 and logs; by default ros/ of the run. Episodes that are there are not acted again, and are
    of one checkpoint and one split."""
    compare: bool = True
    """Act the same scenes without ROS, too, and count how often the outcome is the same."""
    domain: int = 42
    """ROS domain; nothing leaves this machine."""
    dry_run: bool = False
    """Print the nodes' parameters and stop."""

    def __post_init__(self) -> None:
        require_positive(self, "", but=("seed", "domain"))


@dataclass(kw_only=True, slots=True)
class DoctorSettings:
    """Check whether this machine can do the work, and say what to mend."""

    path: str = "."
    """Folder that holds data/ and runs/."""
    contract: str = ""
    """Topic contract: look for five seconds at who talks on its topics, before a policy does."""


@dataclass(kw_only=True, slots=True)
class DemoSettings:
    """The main job from nothing: collect, train beside behaviour cloning, evaluate on unseen objects, write report.html."""

    out: str = "runs/demo"
    """Directory of the run."""
    data: str = "data/demo.hdf5"
    """File of episodes; collected if it is not there."""
    episodes: int = 2400
    """Episodes to log."""
    recipe: str = "demo"
    """Recipe of the episodes."""
    steps: int = 0
    """Gradient steps; 0 takes the demo preset's."""
    eval_episodes: int = 200
    """Held-out test episodes per actor."""
    videos: int = 4
    """Episodes to film."""
    seed: int = 0
    """Seed of data and training."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda`."""
    workers: int = 0
    """Processes of collection and evaluation; 0 takes every core."""
    dry_run: bool = False
    """Print the plan and stop."""

    def __post_init__(self) -> None:
        require_positive(self, "", but=("steps", "videos", "seed", "workers"))
