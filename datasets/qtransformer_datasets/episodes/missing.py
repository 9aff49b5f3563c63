"""What to answer where a path leads nowhere, or to no file of the expected kind: one clear sentence for each way."""

from pathlib import Path
from typing import NoReturn

from qtransformer.errors import DatasetError
from qtransformer.suggest import nearest
from qtransformer_datasets.episodes.parts import PARTIAL, is_unfinished, parts_folder


def refuse_missing(path: Path, expected: str = "a dataset") -> NoReturn:
    """Raise for a path at which nothing lies."""
    if is_unfinished(path):
        raise DatasetError(
            f"{path}: not finished, its episodes lie in {parts_folder(path)}; run the command that was writing it again to "
            "resume and publish it"
        )
    near = _neighbour(path)
    raise DatasetError(f"{path}: expected {expected}, found nothing; {f'did you mean {near}?' if near else 'check the path'}")


def check_file(path: Path, kind: str) -> bytes:
    """The first bytes of a file, at most 64. `kind` says in messages what it should be, as "an HDF5 file".

    Raises:
        DatasetError: nothing there, a folder, unreadable, empty, or a git-lfs pointer.
    """
    if not path.exists():
        refuse_missing(path, kind)
    if not path.is_file():
        raise DatasetError(f"{path}: expected {kind}, found {'a folder' if path.is_dir() else 'none'}; check the path")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error}); check its permissions") from error
    if not head:
        raise DatasetError(f"{path}: expected {kind}, found an empty one; copy it again")
    if head.startswith(b"version https://git-lfs"):
        raise DatasetError(f"{path}: expected {kind}, found a git-lfs pointer to it; run `git lfs pull`")
    return head


def _neighbour(path: Path) -> Path | None:
    """What is called almost so. Stems are compared, as no two files are alike for being HDF5; of two, the same suffix wins."""
    try:
        there = sorted(path.parent.iterdir(), key=lambda entry: entry.suffix == path.suffix)
    except OSError:
        return None
    stems = {entry.stem: entry for entry in there if entry.suffix not in (PARTIAL, ".cache") and entry != path}
    return stems.get(nearest(path.stem, stems) or "")
