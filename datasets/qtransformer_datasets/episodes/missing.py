"""What to answer where a path leads nowhere: a dataset that is not finished, or a name that was meant otherwise."""

from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from qtransformer.errors import DatasetError
from qtransformer_datasets.episodes.parts import is_unfinished, parts_folder


def refuse_missing(path: Path, expected: str = "a dataset") -> NoReturn:
    """Raise for a path at which nothing lies."""
    if is_unfinished(path):
        raise DatasetError(
            f"{path}: not finished, its episodes lie in {parts_folder(path)}; run the command that was writing it again to "
            "resume and publish it"
        )
    near = _neighbour(path)
    raise DatasetError(f"{path}: expected {expected}, found nothing; {f'did you mean {near}?' if near else 'check the path'}")


def _neighbour(path: Path) -> Path | None:
    """What is called almost so. Stems are compared, as no two files are alike for being HDF5; of two, the same suffix wins."""
    try:
        there = sorted(path.parent.iterdir(), key=lambda entry: entry.suffix == path.suffix)
    except OSError:
        return None
    stems = {entry.stem: entry for entry in there if entry.suffix not in (".partial", ".cache") and entry != path}
    close = get_close_matches(path.stem, stems, n=1)
    return stems[close[0]] if close else None
