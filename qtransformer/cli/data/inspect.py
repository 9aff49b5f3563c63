"""`qtransformer data inspect`."""

from pathlib import Path

from qtransformer.cli.data.reading import data_source, episode_bar, save_json
from qtransformer.cli.data_settings import InspectSettings
from qtransformer_datasets.curation.inspect import inspect_source
from qtransformer_datasets.episodes.missing import refuse_missing


def run(settings: InspectSettings) -> int:
    """Exits with 1 where nothing could be read: no episode, and nothing of a bag either."""
    if not Path(settings.path).exists():
        refuse_missing(Path(settings.path))
    report = inspect_source(data_source(settings.path, settings.format, settings), episode_bar("inspect"))
    print(report.text)
    save_json(settings.json, report.numbers)
    return int(not report.numbers.get("episodes") and not report.numbers["reports"])
