"""Which datasets lie in a folder and below."""

from collections.abc import Iterator
from pathlib import Path

from qtransformer.errors import DatasetError
from qtransformer_datasets.formats import FORMATS

UNFINISHED = ".partial"
"""How folders of unfinished files end."""


def find_datasets(path: Path) -> list[Path]:
    """The path itself where a format knows it or it is a file; else the datasets in the folder and below, by name.

    Raises:
        DatasetError: a folder without any.
    """
    if not path.is_dir() or _is_known(path):
        return [path]
    found = list(_below(path))
    if not found:
        raise DatasetError(f"{path}: expected datasets, found none in this folder or below; check the path")
    return found


def _below(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.endswith(UNFINISHED) or _is_known(entry):
            yield entry
        elif entry.is_dir() and not entry.is_symlink():
            yield from _below(entry)


def _is_known(path: Path) -> bool:
    return any(kind.recognises(path) for kind in FORMATS)
