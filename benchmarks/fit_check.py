"""Does training fit a dataset? Greedy actions against logged ones, on the successes it was trained on.

    python benchmarks/fit_check.py dataset=data/low.hdf5 algo=q
    python benchmarks/fit_check.py 'dataset={path:log.hdf5,dones:terminated}' algo=bc episodes=5 rounds=400,800,1600

Takes the arguments of `qtransformer train`, a dataset of any format, and `episodes`, `rounds`, `share`. Trains on the first
`episodes` successful episodes, for the steps of each round afresh until the saved checkpoint fits: until its greedy action lies in
the logged bin, in every dimension at once, on at least `share` of their steps. Exits with 1 if no round is long enough.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from qtransformer import Policy, Trainer
from qtransformer.agreement import logged_bin_chosen
from qtransformer.cli.compose import UsageError, compose_settings
from qtransformer.cli.train import run_config
from qtransformer.cli.training import check_rewards
from qtransformer.config import TrainConfig
from qtransformer.errors import DatasetError, QTransformerError
from qtransformer.types import Episode
from qtransformer_datasets import EpisodeDataset
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.views import select_episodes

EPISODES = 5
ROUNDS = (400, 800, 1600, 3200)
SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Fit:
    """How a checkpoint agrees with the log."""

    steps: int
    """Gradient steps."""
    share: float
    """Of the logged steps, those on which every dimension agrees."""
    by_dimension: dict[str, float]
    by_episode: list[float]
    seconds: float

    def __str__(self) -> str:
        dimensions = ", ".join(f"{name} {share:.3f}" for name, share in self.by_dimension.items())
        episodes = ", ".join(f"{share:.3f}" for share in self.by_episode)
        return f"{self.steps} steps, {self.seconds:.0f} s: {self.share:.3f} of the logged steps ({dimensions}); episodes {episodes}"


def main(arguments: Sequence[str]) -> int:
    own = {"episodes": str(EPISODES), "rounds": ",".join(map(str, ROUNDS)), "share": str(SHARE)}
    own |= {key: value for key, _, value in (word.partition("=") for word in arguments) if key in own}
    overrides = [word for word in arguments if word.partition("=")[0] not in own]
    settings = compose_settings("train", [*overrides, "run=unused"])
    config = run_config(settings)
    if len(config.datasets) != 1:
        raise UsageError("fit_check takes one dataset")
    source, rounds, goal = config.datasets[0], [int(steps) for steps in own["rounds"].split(",")], float(own["share"])
    dataset, episodes = successes(source, int(own["episodes"]), config.train.targets.discount)
    check_rewards(dataset, [source], [source.open()], config.train.algo)
    print(f"{source}: {len(episodes)} successes of {sum(map(len, episodes))} steps, algo={config.train.algo.value}", flush=True)
    for steps in rounds:
        fit = train_and_compare(replace(config.train, steps=steps, save_every=steps, eval_episodes=0), dataset, episodes)
        print(fit, flush=True)
        if fit.share >= goal:
            print(f"fits: {fit.share:.3f} >= {goal:g}")
            return 0
    print(f"does not fit within {rounds[-1]} steps")
    return 1


def successes(source: DataSource, count: int, discount: float) -> tuple[EpisodeDataset, list[Episode]]:
    """The first successful episodes, as a dataset of their own and as they are."""
    logged, found = source.open(), []
    for index in range(len(logged)):
        if len(found) < count and logged.read(index).success:
            found.append(index)
    if not found:
        raise DatasetError(f"{source.path}: no episode succeeds; say which do: dataset={source.typed(success=[0, 3])}")
    chosen = select_episodes(logged, found)
    return EpisodeDataset(chosen, discount=discount), list(chosen)


def train_and_compare(config: TrainConfig, dataset: EpisodeDataset, episodes: Sequence[Episode]) -> Fit:
    """Train afresh, load the checkpoint as a robot would, and let it decide at every logged observation."""
    began = perf_counter()
    with tempfile.TemporaryDirectory() as run:
        progress = sys.stderr.isatty()
        Trainer(config, dataset, run, progress=progress).fit()  # pyright: ignore[reportArgumentType]  # as in cli/training.py
        policy = Policy.from_checkpoint(Path(run), config.device)
    agreed = [logged_bin_chosen(policy, episode) for episode in episodes]
    together = np.concatenate(agreed)
    return Fit(
        steps=config.steps,
        share=float(together.all(1).mean()),
        by_dimension=dict(zip(dataset.action_spec.names, together.mean(0).tolist(), strict=True)),
        by_episode=[float(each.all(1).mean()) for each in agreed],
        seconds=perf_counter() - began,
    )


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except QTransformerError as error:
        sys.exit(f"error: {error}")
