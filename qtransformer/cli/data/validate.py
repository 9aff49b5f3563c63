"""`qtransformer data validate`: all problems of all datasets, and an exit code for scripts."""

from pathlib import Path
from textwrap import indent
from typing import Any

from qtransformer.cli.data.reading import count, counted_bar, data_source, save_json
from qtransformer.cli.data_settings import ValidateSettings
from qtransformer.errors import DatasetError
from qtransformer_datasets.curation.folders import find_datasets
from qtransformer_datasets.curation.verify import FileCheck, Verifier


def run(settings: ValidateSettings) -> int:
    with Verifier(settings.timeout) as verifier:
        checks = [check for path in settings.path for check in _checked(path, settings, verifier)]
    save_json(settings.json, list(map(_plain, checks)))
    problems, bad = sum(len(v.problems) for v in checks), sum(bool(v.problems) for v in checks)
    episodes, steps = sum(len(v.lengths) for v in checks), sum(v.steps for v in checks)
    print(f"{count(len(checks), 'dataset')}, {count(episodes, 'readable episode')}, {count(steps, 'step')}: ", end="")
    print(f"{count(problems, 'problem')} in {count(bad, 'dataset')}" if problems else "no problems")
    return int(problems > 0)


def _checked(path: str, settings: ValidateSettings, verifier: Verifier) -> list[FileCheck]:
    """Checks of what lies at a path, told as they come."""
    try:
        found = find_datasets(Path(path))
    except DatasetError as error:
        return [_told(FileCheck(path, problems=[str(error)]))]
    return [_told(_verified(str(each), settings, verifier)) for each in found]


def _verified(path: str, settings: ValidateSettings, verifier: Verifier) -> FileCheck:
    try:
        source = data_source(path, settings.format, settings)
    except DatasetError as error:  # nothing there, or of no known format
        return FileCheck(path, problems=[str(error)])
    with counted_bar(path) as progress:
        return verifier.verify(source, progress)


def _told(check: FileCheck) -> FileCheck:
    contents = f"{count(len(check.lengths), 'episode')}, {count(check.steps, 'step')}"
    print(f"{'bad ' if check.problems else 'good'}  {check.path}: {contents}", flush=True)
    for report in check.reports:
        print(indent(report, " " * 6), flush=True)
    for problem in check.problems:
        print(f"      - {problem}", flush=True)
    return check


def _plain(check: FileCheck) -> dict[str, Any]:
    return {
        "path": check.path,
        "episodes": len(check.lengths),
        "steps": check.steps,
        "problems": check.problems,
        "reports": check.reports,
    }
