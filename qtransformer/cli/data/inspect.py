"""`qtransformer data inspect`."""

from pathlib import Path

from qtransformer.cli.data.reading import data_source, episode_bar, save_json
from qtransformer.cli.data_settings import InspectSettings
from qtransformer.errors import DatasetError
from qtransformer_datasets.curation.inspect import inspect_source


def run(settings: InspectSettings) -> int:
    if not Path(settings.path).exists():
        raise DatasetError(f"{settings.path}: expected a dataset, found nothing; check the path")
    report = inspect_source(data_source(settings.path, settings.format, settings), episode_bar("inspect"))
    print(report.text)
    save_json(settings.json, report.numbers)
    return 0
