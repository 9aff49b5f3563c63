"""`qtransformer data validate`: all problems of all datasets, and an exit code for scripts."""

from dataclasses import asdict
from pathlib import Path

from qtransformer.cli.data.reading import count, data_source, episode_bar, save_json
from qtransformer.cli.data_settings import ValidateSettings
from qtransformer.errors import DatasetError
from qtransformer_datasets.validate import Verdict, find_datasets, validate


def run(settings: ValidateSettings) -> int:
    verdicts = [verdict for path in settings.path for verdict in _judge(path, settings)]
    save_json(settings.json, [asdict(verdict) for verdict in verdicts])
    problems, bad = sum(len(v.problems) for v in verdicts), sum(bool(v.problems) for v in verdicts)
    episodes, steps = sum(v.episodes for v in verdicts), sum(v.steps for v in verdicts)
    print(f"{count(len(verdicts), 'dataset')}, {count(episodes, 'readable episode')}, {count(steps, 'step')}: ", end="")
    print(f"{count(problems, 'problem')} in {count(bad, 'dataset')}" if problems else "no problems")
    return int(problems > 0)


def _judge(path: str, settings: ValidateSettings) -> list[Verdict]:
    """Verdicts on what lies at a path, told as they come."""
    try:
        found = find_datasets(Path(path))
    except DatasetError as error:
        return [_told(Verdict(path=path, episodes=0, steps=0, problems=[str(error)]))]
    return [_told(_validated(str(each), settings)) for each in found]


def _validated(path: str, settings: ValidateSettings) -> Verdict:
    try:
        source = data_source(path, settings.format, settings)
    except DatasetError as error:  # nothing there, or of no known format
        return Verdict(path=path, episodes=0, steps=0, problems=[str(error)])
    return validate(source, episode_bar(path))


def _told(verdict: Verdict) -> Verdict:
    contents = f"{count(verdict.episodes, 'episode')}, {count(verdict.steps, 'step')}"
    print(f"{'bad ' if verdict.problems else 'good'}  {verdict.path}: {contents}", flush=True)
    for problem in verdict.problems:
        print(f"      - {problem}", flush=True)
    return verdict
