"""`qtransformer data inspect`."""

from dataclasses import asdict
from pathlib import Path

from qtransformer.cli.data.reading import data_source, episode_bar, save_json
from qtransformer.cli.data_settings import InspectSettings
from qtransformer.errors import DatasetError
from qtransformer_datasets.inspect import inspect_source


def run(settings: InspectSettings) -> int:
    if not Path(settings.path).exists():
        raise DatasetError(f"{settings.path}: expected a dataset, found nothing; check the path")
    text, found = inspect_source(data_source(settings.path, settings.format, settings), episode_bar("inspect"))
    print(text)
    save_json(settings.json, {"problems": found} if isinstance(found, list) else asdict(found))
    return 0
