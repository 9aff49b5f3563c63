"""`qtransformer study NAME`: a grid of trainings over seeds, then its table, plots and page."""

from pathlib import Path

from qtransformer.cli.compose import UsageError, check_choice
from qtransformer.cli.settings import StudySettings
from qtransformer.cli.studies import results
from qtransformer.cli.studies.cells import Cell, cells_of
from qtransformer.cli.studies.grids import STUDIES, Arm, Study
from qtransformer.cli.studies.schedule import Schedule
from qtransformer.parallel import default_workers

ASSUMED_SECONDS_PER_STEP = 0.15
"""Of one core, where no cell of the kind has been run."""
JUDGED_SECONDS_PER_EPISODE = 0.25


def run(settings: StudySettings) -> int:
    check_choice("name", settings.name, list(STUDIES))
    study = STUDIES[settings.name]
    arms = chosen_arms(study, settings.arms)
    wanted = {arm.name: list(cells_of(arm, settings.seeds, settings.episodes, settings.first_scene)) for arm in arms}
    out = Path(settings.out)
    known = {row["cell"]: row for row in results.read(out / results.CELLS)}
    missing = in_order(wanted, known)
    if settings.dry_run:
        print(plan(study, wanted, known, missing))
        return 0
    failures: list[str] = []
    if missing and not settings.report_only:
        schedule = Schedule(Path(settings.runs), Path(settings.data), out, settings.device, settings.workers or default_workers())
        failures = schedule.run(missing)
    page = report(study, settings, out)
    print("\n".join([*(f"failed: {failure}" for failure in failures), f"tables and plots: {out}/{study.name}*; page: {page}"]))
    return 1 if failures else 0


def chosen_arms(study: Study, names: list[str]) -> list[Arm]:
    """The arms that are named, or all."""
    known = {arm.name: arm for arm in study.arms}
    for name in names:
        check_choice("arms", name, list(known))
    return [arm for arm in study.arms if not names or arm.name in names]


def in_order(wanted: dict[str, list[Cell]], known: dict[str, dict[str, str]]) -> list[Cell]:
    """Cells still to be run: all arms' first seeds before any second, so that a study cut short compares like with like."""
    cells = {cell.identity: cell for cell in sorted((c for row in wanted.values() for c in row), key=lambda cell: cell.seed)}
    return [cell for identity, cell in cells.items() if identity not in known]


def plan(study: Study, wanted: dict[str, list[Cell]], known: dict[str, dict[str, str]], missing: list[Cell]) -> str:
    lines = [f"{study.name}: {study.question}", ""]
    for arm in study.arms:
        if arm.name in wanted:
            cells = wanted[arm.name]
            done = sum(cell.identity in known for cell in cells)
            lines.append(f"  {arm.name:24} {done} of {len(cells)} seeds done; {arm.data}, {arm.split}; {' '.join(arm.overrides)}")
    minutes = sum(estimated_seconds(cell, known) for cell in missing) / 60
    return "\n".join([*lines, "", f"would run {len(missing)} cells, about {minutes:.0f} core-minutes"])


def estimated_seconds(cell: Cell, known: dict[str, dict[str, str]]) -> float:
    """Core-seconds of a cell, from finished ones with the same algorithm."""
    alike = [row for row in known.values() if row["algo"] == cell.config["algo"]]
    paces = [float(row["train_seconds"]) / float(row["steps"]) for row in alike] or [ASSUMED_SECONDS_PER_STEP]
    return cell.steps * sum(paces) / len(paces) + cell.episodes * JUDGED_SECONDS_PER_EPISODE


def report(study: Study, settings: StudySettings, out: Path) -> Path:
    """Write what the results say so far."""
    from qtransformer.report.study import build_study_report  # slow to import, and only needed here

    rows, curves = results.read(out / results.CELLS), results.read(out / results.CURVES)
    cells = {
        arm.name: [c.identity for c in cells_of(arm, settings.seeds, settings.episodes, settings.first_scene)] for arm in study.arms
    }
    labels = {arm.name: arm.label for arm in study.arms}
    if not any(row["cell"] in identities for identities in cells.values() for row in rows):
        raise UsageError(f"no cell of {study.name} is in {out / results.CELLS} yet: run it without report_only=true")
    return build_study_report(study.name, study.question, labels, cells, study.pairs, rows, curves, out, Path(settings.runs))
