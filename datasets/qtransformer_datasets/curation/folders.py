"""Which datasets lie in a folder and below."""

from collections.abc import Iterator
from pathlib import Path

from qtransformer.errors import DatasetError
from qtransformer_datasets.episodes.parts import PARTIAL
from qtransformer_datasets.formats import FORMATS
from qtransformer_datasets.rosbag.bag_names import is_bag

CACHE = ".cache"
"""How the folder ends that `frame_cache` puts beside a dataset."""


def find_datasets(path: Path) -> list[Path]:
    """The path itself where it is one dataset or a file; else the datasets in the folder and below, by name.

    A folder of bags is gone through, although it can be opened as one: datasets of other formats may lie between them.

    Raises:
        DatasetError: a folder without any.
    """
    if not path.is_dir() or _is_one(path):
        return [path]
    found = list(_below(path))
    if not found:
        raise DatasetError(f"{path}: expected datasets, found none in this folder or below; check the path")
    return found


def _below(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.endswith(PARTIAL) or _is_one(entry):
            yield entry
        elif entry.is_dir() and not entry.is_symlink() and not _is_cache(entry):
            yield from _below(entry)


def _is_one(path: Path) -> bool:
    return is_bag(path) or any(kind.recognises(path) for kind in FORMATS if kind.name != "rosbag")


def _is_cache(folder: Path) -> bool:
    return folder.suffix == CACHE and folder.with_suffix("").exists()
