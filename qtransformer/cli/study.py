"""`qtransformer study NAME`: a grid of trainings over seeds, and what it says."""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qtransformer.cli.compose import UsageError, check_choice
from qtransformer.cli.settings import StudySettings
from qtransformer.cli.studies.cells import VALIDATION_EPISODES, VALIDATIONS, Cell, cells_of
from qtransformer.cli.studies.grids import STUDIES, Arm, Study
from qtransformer.cli.studies.results import Row, finished, on_a_core, read_cells, read_curves, read_probes
from qtransformer.cli.studies.schedule import Folders, Schedule
from qtransformer.errors import ConfigError
from qtransformer.parallel import default_workers

ASSUMED_STEP = 0.2
"""Seconds of a gradient step on one core, where no finished cell of the same algorithm tells."""
EPISODE_SECONDS = 0.25
"""Of one that is acted and judged."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a study takes: cells by arm, in the order of the study, the results there are, and the cells that are finished."""

    study: Study
    cells: Mapping[str, Sequence[Cell]]
    known: Mapping[str, Row]
    finished: Set[str]

    @property
    def arms(self) -> list[Arm]:
        return [arm for arm in self.study.arms if arm.name in self.cells]

    @property
    def missing(self) -> list[Cell]:
        """All arms' first seed before any arm's second, so that a study that is stopped early still compares all arms."""
        by_seed = sorted((cell for cells in self.cells.values() for cell in cells), key=lambda cell: cell.seed)
        return [cell for name, cell in {c.identity: c for c in by_seed}.items() if name not in self.finished]


def run(settings: StudySettings) -> int:
    plan = planned(settings)
    if settings.dry_run:
        print(described(plan))
        return 0
    failures = []
    if plan.missing and not settings.report_only:
        folders = Folders(Path(settings.out), Path(settings.runs), Path(settings.data))
        schedule = Schedule(folders, devices(settings), plan.study)
        failures = schedule.run(plan.missing)
    if page := report(plan.study, settings):
        print(f"{settings.out}/{plan.study.name}.md, {page}")
    if failures:
        raise ConfigError(f"{len(failures)} of {len(plan.missing)} cells failed; run this again when it is mended: {failures[0]}")
    return 0


def planned(settings: StudySettings) -> Plan:
    """Raises UsageError where the study, an arm or the seeds cannot be meant."""
    check_choice("name", settings.name, list(STUDIES))
    study, seeds = STUDIES[settings.name], chosen_seeds(settings.seeds)
    for name in settings.arms:
        check_choice("arms", name, [arm.name for arm in study.arms])
    arms = [arm for arm in study.arms if not settings.arms or arm.name in settings.arms]
    cells = {arm.name: list(cells_of(arm, seeds, settings.episodes, settings.first_scene)) for arm in arms}
    out = Path(settings.out)
    return Plan(study, cells, read_cells(out), finished(out, study.probed_on))


def chosen_seeds(said: Any) -> list[int] | None:
    """Training seeds from a number of them or a list; None leaves them to the arms."""
    try:
        seeds = [int(str(seed)) for seed in said] if isinstance(said, list) else list(range(int(str(said))))
    except ValueError:
        raise UsageError(f"seeds={said}: expected a number of seeds or a list of them, [0,2]") from None
    if any(seed < 0 for seed in seeds) or len(set(seeds)) < len(seeds) or (not seeds and str(said) != "0"):
        raise UsageError(f"seeds={said}: expected at least one seed, none below 0 and none twice")
    return seeds or None


def devices(settings: StudySettings) -> list[str]:
    """The device of every cell that runs at a time."""
    check_choice("device", settings.device, ["cpu", "cuda"])
    if settings.device == "cuda":
        gpus = torch.cuda.device_count()
        if not gpus:
            raise ConfigError("device=cuda: expected a GPU, found none that PyTorch can use; leave device=cpu")
        return [f"cuda:{i % gpus}" for i in range(settings.workers or gpus)]
    return [settings.device] * (settings.workers or default_workers())


def described(plan: Plan) -> str:
    """What `dry_run=true` shows."""
    lines = [f"{plan.study.name}: {plan.study.question}", ""]
    for arm in plan.arms:
        cells = plan.cells[arm.name]
        seeds = ", ".join(f"{cell.seed}{' (done)' if cell.identity in plan.finished else ''}" for cell in cells)
        lines += [
            f"{arm.name}: {arm.label}",
            f"    {' '.join(arm.overrides)}",
            f"    {arm.data}; {arm.split} objects; seeds {seeds}",
        ]
    missing = plan.missing
    trainings = {cell.run_name: expected_training_seconds(cell, plan.known) for cell in missing}
    minutes = (sum(trainings.values()) + sum(expected_judging_seconds(cell) for cell in missing)) / 60
    files = {cell.data_file for cell in missing}
    told = f"would run {len(missing)} cells on {len(files)} files of episodes: about {minutes:.0f} core-minutes"
    return "\n".join([*lines, "", told + " beside collecting"])


def expected_training_seconds(cell: Cell, known: Mapping[str, Row]) -> float:
    """Expected core-seconds of a cell's training and its validations, at the pace of the finished ones of the same algorithm."""
    alike = [row for row in known.values() if row["algo"] == cell.config["algo"] and on_a_core(row)]
    step = _mean([float(row["train_seconds"]) / int(row["steps"]) for row in alike], ASSUMED_STEP)
    return cell.steps * step + VALIDATIONS * VALIDATION_EPISODES * EPISODE_SECONDS


def expected_judging_seconds(cell: Cell) -> float:
    """Expected core-seconds of a cell's judgement."""
    return cell.episodes * EPISODE_SECONDS


def report(study: Study, settings: StudySettings) -> Path | None:
    """Write what the results say so far, whatever seeds were asked for this time; None where no cell of the study is finished."""
    from qtransformer.report.study import ArmResult, build_study_report  # slow to import, and only needed here

    out = Path(settings.out)
    known, curves, probes = read_cells(out), read_curves(out), read_probes(out, study.probed_on) if study.probed_on else {}
    seeds = sorted({int(row["seed"]) for row in known.values()})
    arms = []
    for arm in study.arms:
        identities = [cell.identity for cell in cells_of(arm, seeds, settings.episodes, settings.first_scene)]
        rows = [known[name] for name in identities if name in known]
        if rows:
            own_curves = [curves.get(row["cell"], []) for row in rows]
            arms.append(ArmResult.of(arm.name, arm.label, str(arm.data), rows, own_curves, probes, core_minutes(rows)))
    if not arms:
        return None
    return build_study_report(study.name, study.question, arms, study.pairs, out, Path(settings.runs))


def core_minutes(rows: Sequence[Row]) -> float:
    """Mean minutes of the gradient steps of cells on a core; not a number where all ran on GPUs."""
    return _mean([float(row["train_seconds"]) for row in rows if on_a_core(row)], math.nan) / 60


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
