"""`qtransformer data inspect`."""

from pathlib import Path

from qtransformer.cli.settings import InspectSettings
from qtransformer.errors import DatasetError
from qtransformer_datasets import inspect_dataset


def run(settings: InspectSettings) -> int:
    if not Path(settings.path).exists():
        raise DatasetError(f"{settings.path}: expected an HDF5 file, found nothing; check the path")
    print(inspect_dataset(settings.path))
    return 0
