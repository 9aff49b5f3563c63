"""`qtransformer report`: the page of a run, from whatever the run has left behind so far."""

from pathlib import Path

from qtransformer.cli.factories import run_directory
from qtransformer.cli.settings import ReportSettings
from qtransformer.errors import ConfigError

MADE_FROM = ("config.json", "metrics.jsonl")


def run(settings: ReportSettings) -> int:
    directory = run_directory(Path(settings.run))
    if not any((directory / name).exists() for name in MADE_FROM):
        raise ConfigError(
            f"{directory}: expected a run with {' or '.join(MADE_FROM)}, found neither; `train run=...` names its directory"
        )
    from qtransformer.report import build_report  # slow to import, and only needed here

    print(build_report(directory))
    return 0
