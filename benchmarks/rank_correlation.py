"""How well scores from logs alone rank checkpoints, against success in the simulator.

    python benchmarks/rank_correlation.py --data held_out.hdf5 --runs runs/a runs/b [--critic-data train.hdf5] [--out OUT]

Every checkpoint of every run is judged from the log (as `qtransformer eval dataset=...` does) and acts the same validation scenes.
Both results are kept under --cache by the checkpoint's manifest, so an interrupted measurement goes on and a new run costs only
itself. Writes OUT.csv (all scores of all checkpoints), OUT.md (Spearman of each score with success, with bootstrap intervals over
checkpoints and episodes) and OUT.png (two scores against success).
"""

import argparse
import csv
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from qtransformer.best_checkpoint import VALIDATION_SEED
from qtransformer.cli.factories import SIMULATOR, EnvFactory, observed_env_kwargs
from qtransformer.errors import QTransformerError
from qtransformer.evaluate import Evaluation, evaluate
from qtransformer.files import write_json
from qtransformer.log_evaluation import CriticConfig
from qtransformer.log_evaluation.judging import LOWER_IS_BETTER, LogJudge, checkpoints_of, judge_all
from qtransformer.log_evaluation.ranking import RankCorrelation, rank_correlation
from qtransformer.policy import Policy
from qtransformer_datasets import EpisodeDataset

PLOTTED = ("likelihood_gap", "fqe")
"""The score that chooses, and the one that theory would have choose."""
MIN_CHECKPOINTS = 4
"""Below these no correlation is worth printing."""


class Judged(NamedTuple):
    """A checkpoint with what the log says and what the simulator says."""

    checkpoint: Path
    algo: str
    scores: dict[str, float]
    outcomes: np.ndarray
    """bool (episodes,)."""

    @property
    def run(self) -> str:
        return self.checkpoint.parent.parent.name

    @property
    def step(self) -> int:
        return int(self.checkpoint.name.removeprefix("step_"))


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    checkpoints = usable([c for run in options.runs for c in checkpoints_of(run)], options.data)
    outcomes = [simulate(c, options.episodes, options.cache) for c in tqdm(checkpoints, desc="simulate", disable=None)]
    verdicts = judge(checkpoints, options)
    judged = [
        Judged(c, v["algo"], {k: math.nan if x is None else x for k, x in v["scores"].items()}, o)
        for c, v, o in zip(checkpoints, verdicts, outcomes, strict=True)
    ]
    for item in judged:
        item.scores["training_steps"] = float(item.step)  # what a score must beat to be worth its while
    write_csv(judged, options.out.with_suffix(".csv"))
    text = markdown(judged)
    options.out.with_suffix(".md").write_text(text)
    plot(judged, options.out.with_suffix(".png"))
    print(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", required=True, help="run or checkpoint directories")
    parser.add_argument("--data", required=True, help="held-out episodes")
    parser.add_argument("--critic-data", default="", help="episodes the critic learns from (default: --data)")
    parser.add_argument("--episodes", type=int, default=200, help="simulated validation episodes per checkpoint")
    parser.add_argument("--fqe-steps", type=int, default=200)
    parser.add_argument("--critic-steps", type=int, default=1200)
    parser.add_argument("--cache", type=Path, default=Path("rank_correlation_cache"))
    parser.add_argument("--out", type=Path, default=Path("rank_correlation"))
    return parser.parse_args()


def usable(checkpoints: list[Path], data: str) -> list[Path]:
    """Those that load and fit the log; the others are named and left out."""
    spec, kept = EpisodeDataset(data).action_spec, []
    for checkpoint in checkpoints:
        try:
            policy = Policy.from_checkpoint(checkpoint, "cpu")
        except QTransformerError as error:
            print(f"left out: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        if policy.action_spec == spec:
            kept.append(checkpoint)
        else:
            print(f"left out: {checkpoint} has other actions than {data}", file=sys.stderr)
    return kept


def simulate(checkpoint: Path, episodes: int, cache: Path) -> np.ndarray:
    """Success in each validation scene."""
    path = cache / f"{fingerprint(checkpoint)}-simulated-{episodes}.json"
    if not path.exists():
        policy = Policy.from_checkpoint(checkpoint, "cpu")
        env = EnvFactory(SIMULATOR, {**observed_env_kwargs(policy.observation_spec), "split": "validation"})()
        seeds = range(VALIDATION_SEED, VALIDATION_SEED + episodes)
        write_json(path, evaluate(env, policy, seeds, policy.config.targets.discount).to_dict())
        env.close()
    return np.array([r.success for r in Evaluation.from_dict(json.loads(path.read_text())).results])


def judge(checkpoints: list[Path], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Verdicts as dictionaries. Judged together, because the tournament needs all; kept for exactly this company and log."""
    discount = Policy.from_checkpoint(checkpoints[0], "cpu").config.targets.discount
    data = EpisodeDataset(options.data, discount=discount)
    critic_data = EpisodeDataset(options.critic_data, discount=discount) if options.critic_data else None
    company = [data.fingerprint, critic_data.fingerprint if critic_data else "", options.critic_steps, options.fqe_steps]
    key = hashlib.sha256(json.dumps([*company, *map(fingerprint, checkpoints)]).encode()).hexdigest()[:16]
    path = options.cache / f"{key}-judged.json"
    if not path.exists():
        config = CriticConfig(steps=options.critic_steps, fqe_steps=options.fqe_steps)
        bar = tqdm(desc="judge", unit=" critic steps or checkpoints", disable=None)
        log_judge = LogJudge(data, options.data, config, critic_data)  # pyright: ignore[reportArgumentType]
        write_json(path, [v.to_dict() for v in judge_all(log_judge, checkpoints, "cpu", lambda _: bar.update())])
    return json.loads(path.read_text())


def fingerprint(checkpoint: Path) -> str:
    return hashlib.sha256((checkpoint / "manifest.json").read_bytes()).hexdigest()[:16]


def oriented(name: str, values: np.ndarray) -> np.ndarray:
    """A score turned so that more is better."""
    return -values if name in LOWER_IS_BETTER else values


def correlation_of(judged: list[Judged], name: str) -> tuple[RankCorrelation, int] | None:
    """Rank correlation of a score with success over the checkpoints that have it."""
    having = [j for j in judged if math.isfinite(j.scores.get(name, math.nan))]
    if len(having) < MIN_CHECKPOINTS:
        return None
    values = oriented(name, np.array([j.scores[name] for j in having]))
    return rank_correlation(values, np.stack([j.outcomes for j in having])), len(having)


def within_runs(judged: list[Judged], name: str) -> tuple[int, int]:
    """Pairs of checkpoints of the same run whose order by the score is that of their success, and how many pairs differ."""
    right = total = 0
    for i, a in enumerate(judged):
        for b in judged[:i]:
            success = a.outcomes.mean() - b.outcomes.mean()
            if a.checkpoint.parent != b.checkpoint.parent or success == 0 or not math.isfinite(a.scores.get(name, math.nan)):
                continue
            total += 1
            difference = oriented(name, np.array([a.scores[name] - b.scores[name]]))[0]
            right += bool(difference * success > 0)
    return right, total


def write_csv(judged: list[Judged], path: Path) -> None:
    names = list(judged[0].scores)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "step", "algo", "simulated_success", *names])
        for j in judged:
            numbers = [f"{j.scores[n]:.6g}" if math.isfinite(j.scores[n]) else "" for n in names]
            writer.writerow([j.run, j.step, j.algo, f"{j.outcomes.mean():.4f}", *numbers])


def markdown(judged: list[Judged]) -> str:
    """One line for each score: rank correlation over all checkpoints, cloned and value-based ones apart, order within runs,
    and regret."""
    cloned, valued = [j for j in judged if j.algo == "bc"], [j for j in judged if j.algo != "bc"]
    runs = len({j.checkpoint.parent for j in judged})
    lines = [
        f"{len(judged)} checkpoints of {runs} runs, {len(judged[0].outcomes)} simulated episodes each",
        "",
        "| score | all | cloned | value-based | right order within runs | regret of its choice |",
        "|---|---|---|---|---|---|",
    ]
    rows = []
    for name in judged[0].scores:
        overall = correlation_of(judged, name)
        if overall is None:
            continue
        cells = [_cell(overall), _cell(correlation_of(cloned, name)), _cell(correlation_of(valued, name))]
        right, total = within_runs(judged, name)
        rows.append((-overall[0].rho, f"| `{name}` | {' | '.join(cells)} | {right} of {total} | {regret(judged, name):.2f} |"))
    return "\n".join([*lines, *(row for _, row in sorted(rows))]) + "\n"


def _cell(found: tuple[RankCorrelation, int] | None) -> str:
    return f"{found[0]} (n={found[1]})" if found else "-"


def regret(judged: list[Judged], name: str) -> float:
    """How much less the checkpoint chosen by a score succeeds than the best of all."""
    having = [j for j in judged if math.isfinite(j.scores.get(name, math.nan))]
    values = oriented(name, np.array([j.scores[name] for j in having]))
    return max(j.outcomes.mean() for j in having) - having[int(values.argmax())].outcomes.mean()


def plot(judged: list[Judged], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), PLOTTED, strict=True):
        for algo, marker in (("bc", "o"), ("q", "^"), ("mc", "s")):
            chosen = [j for j in judged if j.algo == algo and math.isfinite(j.scores.get(name, math.nan))]
            axes.scatter(
                [j.scores[name] for j in chosen], [j.outcomes.mean() for j in chosen], marker=marker, label=algo, alpha=0.8
            )
        found = correlation_of(judged, name)
        axes.set(xlabel=f"{name} (from the log alone)", ylabel="simulated success", title=f"Spearman {found[0] if found else '-'}")
        axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
