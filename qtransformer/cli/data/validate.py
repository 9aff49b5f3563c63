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
        verdicts = [verdict for path in settings.path for verdict in _judge(path, settings, verifier)]
    save_json(settings.json, list(map(_plain, verdicts)))
    problems, bad = sum(len(v.problems) for v in verdicts), sum(bool(v.problems) for v in verdicts)
    episodes, steps = sum(len(v.lengths) for v in verdicts), sum(v.steps for v in verdicts)
    print(f"{count(len(verdicts), 'dataset')}, {count(episodes, 'readable episode')}, {count(steps, 'step')}: ", end="")
    print(f"{count(problems, 'problem')} in {count(bad, 'dataset')}" if problems else "no problems")
    return int(problems > 0)


def _judge(path: str, settings: ValidateSettings, verifier: Verifier) -> list[FileCheck]:
    """Verdicts on what lies at a path, told as they come."""
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


def _told(verdict: FileCheck) -> FileCheck:
    contents = f"{count(len(verdict.lengths), 'episode')}, {count(verdict.steps, 'step')}"
    print(f"{'bad ' if verdict.problems else 'good'}  {verdict.path}: {contents}", flush=True)
    for report in verdict.reports:
        print(indent(report, " " * 6), flush=True)
    for problem in verdict.problems:
        print(f"      - {problem}", flush=True)
    return verdict


def _plain(verdict: FileCheck) -> dict[str, Any]:
    return {
        "path": verdict.path,
        "episodes": len(verdict.lengths),
        "steps": verdict.steps,
        "problems": verdict.problems,
        "reports": verdict.reports,
    }
