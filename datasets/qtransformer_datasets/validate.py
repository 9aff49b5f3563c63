"""Every problem of every episode of a dataset, without stopping at the first."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qtransformer.errors import DatasetError
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.formats import FORMATS
from qtransformer_datasets.survey import Progress, open_anyway, survey

UNFINISHED = ".partial"
"""How folders of unfinished files end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What reading all of a dataset brought to light."""

    path: str
    episodes: int
    """Readable ones."""
    steps: int
    problems: list[str]


def validate(source: DataSource, progress: Progress = iter) -> Verdict:
    """Open a dataset and read every episode. What is wrong with the data is collected; a setting that does not exist raises."""
    problems = list[str]()
    episodes = open_anyway(source, problems)
    if episodes is None:
        return Verdict(path=source.path, episodes=0, steps=0, problems=problems)
    found = survey(episodes, progress)
    steps = sum(len(e) for e in found.episodes.values())
    return Verdict(path=source.path, episodes=len(found.episodes), steps=steps, problems=problems + found.problems)


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
