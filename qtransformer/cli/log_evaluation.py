"""`qtransformer eval dataset=...`: checkpoints judged from logs alone. Imports no simulator."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from qtransformer.checkpoint import set_best
from qtransformer.cli.compose import UsageError
from qtransformer.cli.settings import ActorKind, EvalSettings
from qtransformer.cli.sources import listed_sources
from qtransformer.files import write_json
from qtransformer.log_evaluation import CriticConfig
from qtransformer.log_evaluation.judging import CheckpointScores, LogJudge, best, checkpoints_of, judge_all, selection_score
from qtransformer.policy import Policy
from qtransformer_datasets import EpisodeDataset
from qtransformer_datasets.data_source import DataSource

COLUMNS = ("likelihood_gap", "fqe", "td_error", "calibration_error", "auc_episode", "soft_opc", "opc", "bvft", "match_success")
"""Scores of the printed table; the JSON file holds all."""


def run(settings: EvalSettings) -> int:
    if settings.actor is not ActorKind.policy:
        raise UsageError(f"actor={settings.actor.value}: logs judge the checkpoints of run=...; leave actor out")
    runs, sources = listed_runs(settings.run), listed_sources("dataset", settings.dataset)
    files = [source.path for source in sources]
    checkpoints = [checkpoint for run in runs for checkpoint in checkpoints_of(run)]
    judge = log_judge(settings, sources, checkpoints[0])
    if settings.dry_run:
        print(f"would judge {len(checkpoints)} checkpoints of {', '.join(runs)} on {', '.join(files)}")
        return 0
    verdicts = judge_with_bar(judge, checkpoints, settings)
    score = selection_score(verdicts)
    chosen = best(verdicts, score)
    print(table(verdicts, score, chosen))
    if settings.json:
        path = Path(settings.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, report(verdicts, score, chosen, files))
    if settings.select:
        select(verdicts, score)
    print(f"best by {score}: {chosen.checkpoint} ({chosen.scores[score]:.4f})")
    return 0


def log_judge(settings: EvalSettings, sources: Sequence[DataSource], first: Path) -> LogJudge:
    """The judge of the settings; returns are discounted as the first checkpoint's training did."""
    discount = Policy.from_checkpoint(first, settings.device).config.targets.discount
    critic = listed_sources("critic_data", settings.critic_data) if settings.critic_data else []
    return LogJudge(
        EpisodeDataset([source.open() for source in sources], discount=discount),  # pyright: ignore[reportArgumentType]  # cached_property for a property
        name=", ".join(source.path for source in sources),
        config=CriticConfig(steps=settings.critic_steps, fqe_steps=settings.fqe_steps),
        critic_data=EpisodeDataset([source.open() for source in critic], discount=discount) if critic else None,  # pyright: ignore[reportArgumentType]
    )


def judge_with_bar(judge: LogJudge, checkpoints: Sequence[Path], settings: EvalSettings) -> list[CheckpointScores]:
    critic_steps = settings.critic_steps if settings.fqe_steps else 0
    with (
        tqdm(total=critic_steps, desc="critic", unit="step", disable=None if critic_steps else True) as critic,
        tqdm(total=len(checkpoints), desc="judge", unit="checkpoint", disable=None) as judged,
    ):
        bars = {"critic step": critic, "checkpoint": judged}
        return judge_all(judge, checkpoints, settings.device, lambda done: bars[done].update())


def select(verdicts: Sequence[CheckpointScores], score: str) -> None:
    """Point every run's best.json at its own best checkpoint."""
    for root in dict.fromkeys(v.checkpoint.parent for v in verdicts):
        chosen = best([v for v in verdicts if v.checkpoint.parent == root], score)
        set_best(root, chosen.checkpoint, **{score: chosen.scores[score]})
        print(f"{root}/best.json: {chosen.checkpoint.name}")


def report(verdicts: Sequence[CheckpointScores], score: str, chosen: CheckpointScores, files: Sequence[str]) -> dict[str, Any]:
    """The content of json=..."""
    return {
        "dataset": list(files),
        "selected_by": score,
        "best": str(chosen.checkpoint),
        "checkpoints": [verdict.to_dict() for verdict in verdicts],
    }


def table(verdicts: Sequence[CheckpointScores], score: str, chosen: CheckpointScores) -> str:
    """One line for each checkpoint, in the order given; the best one is starred, what does not exist is a dash."""
    columns = [score, *(name for name in COLUMNS if name != score and name in verdicts[0].scores)]
    rows = [["", "checkpoint", "algo", *columns]]
    for verdict in verdicts:
        numbers = [f"{verdict.scores[c]:.4f}" if math.isfinite(verdict.scores[c]) else "-" for c in columns]
        rows.append(["*" if verdict is chosen else "", short_name(verdict.checkpoint), verdict.algo, *numbers])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    align = [str.ljust] * 3 + [str.rjust] * len(columns)
    return "\n".join("  ".join(f(c, w) for f, c, w in zip(align, row, widths, strict=True)).rstrip() for row in rows)


def short_name(checkpoint: Path) -> str:
    """run/step_0001000 for a run's checkpoint."""
    inside = checkpoint.parent.name == "checkpoints"
    return f"{checkpoint.parent.parent.name}/{checkpoint.name}" if inside else checkpoint.name


def listed_runs(value: Any) -> list[str]:
    """The setting `run`, one path or a list of them, as a list."""
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, str) and item for item in items):
        raise UsageError(f"run: expected a path or a list of paths, found {value!r}")
    return items
