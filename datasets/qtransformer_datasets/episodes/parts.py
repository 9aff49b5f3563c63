"""The folder `<path>.partial/` in which a writer keeps finished episodes until it publishes them all in one step.

Every episode is a file or folder of its own that appears there by rename, so a killed run loses at most the episode being
written. Beside them lies the recipe, so that nobody resumes a run with other settings, and a lock that the kernel lets go
when its process is killed.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qtransformer.errors import DatasetError, SpecMismatchError
from qtransformer.files import replaced_file, sync

PARTIAL = ".partial"
"""Ends the name of a folder until what is written there is finished."""
_RECIPE, _LOCK = "recipe.json", "lock"


class EpisodeParts:
    """The parts of one unfinished dataset, held by one process. `name` is that of part 0: `demo_0.hdf5`, `episode_0`."""

    def __init__(self, path: Path, recipe: Mapping[str, Any], name: str) -> None:
        """Take the folder, or make it. Refuses, naming the field, if what lies there was begun with another recipe."""
        if path.exists():
            raise DatasetError(f"{path}: expected a free path, found a finished file or folder; choose another path or delete it")
        self.path, self.folder = path, parts_folder(path)
        self._stem, self._suffix = name.split("0", 1)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / _LOCK).open("w")
        except OSError as error:
            raise DatasetError(f"{path}: cannot be written ({error}); check the folder and its permissions") from error
        try:
            self._take_lock()
            self._keep_recipe(dict(recipe))
            self.count = self._count()
        except BaseException:
            self.close()
            raise

    def __getitem__(self, index: int) -> Path:
        """Where part `index` lies."""
        return self.folder / f"{self._stem}{index}{self._suffix}"

    def add(self, fresh: Path) -> None:
        """Take a file or folder that is completely written as the next part."""
        sync(fresh)
        os.replace(fresh, self[self.count])
        self.count += 1

    def publish(self, merged: Path) -> None:
        """Let `merged` appear at the path in one step, and drop the parts."""
        sync(merged)
        os.replace(merged, self.path)
        self.close()
        shutil.rmtree(self.folder)

    def close(self) -> None:
        """Let go of the lock; the parts stay."""
        self._lock.close()

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(f"{self.path}: another process is writing it; wait for it or choose another path") from None

    def _keep_recipe(self, recipe: dict[str, Any]) -> None:
        kept = self.folder / _RECIPE
        if not kept.exists():
            with replaced_file(kept) as fresh:
                fresh.write_text(json.dumps(recipe))
            return
        try:
            old = json.loads(kept.read_text())
        except ValueError as error:
            raise DatasetError(f"{kept}: expected JSON ({error}); delete {self.folder} and collect again") from error
        difference = _first_difference(old, recipe)
        if difference is not None:
            name, before, now = difference
            raise SpecMismatchError(
                f"{self.path}: {name} differs from the run being resumed: expected {before}, found {now}; "
                f"resume with the same settings, or delete {self.folder} to start over"
            )

    def _count(self) -> int:
        """How many parts lie there in an unbroken row. What a kill left half written has other names, and is overwritten."""
        names = [part.name for part in self.folder.glob(f"{self._stem}*{self._suffix}")]
        found = sum(name.removeprefix(self._stem).removesuffix(self._suffix).isdigit() for name in names)
        missing = [self[i].name for i in range(found) if not self[i].exists()]
        if missing:
            raise DatasetError(
                f"{self.folder}: expected parts 0 to {found - 1}, {missing[0]} is missing; delete the folder and collect again"
            )
        return found


def parts_folder(path: Path) -> Path:
    """Where the episodes of an unfinished dataset lie."""
    return path.with_name(path.name + PARTIAL)


def is_unfinished(path: Path) -> bool:
    """Whether only parts of a dataset lie there; what a recorder of bags leaves under that name is none of ours."""
    return not path.exists() and (parts_folder(path) / _RECIPE).exists()


def refuse_unfinished(path: Path, writer: str) -> None:
    """Raise if a killed run left parts: starting afresh would mix two runs."""
    if parts_folder(path).exists():
        raise DatasetError(
            f"{path}: a killed run left episodes in {parts_folder(path)}; resume it ({writer}.open_or_resume) or delete the folder"
        )


def plain_json(value: dict[str, Any], where: str) -> dict[str, Any]:
    """A dictionary as JSON gives it back: tuples become lists, numpy numbers Python's."""
    try:
        return json.loads(json.dumps(value, default=lambda x: x.tolist() if isinstance(x, np.generic | np.ndarray) else _refuse(x)))
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{where}: expected values that JSON can hold ({error}); convert or drop them") from error


def _refuse(value: object) -> None:
    raise TypeError(f"found {type(value).__name__}")


def _first_difference(old: Any, new: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first leaf, as `attributes.seed`, in which two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            found = _first_difference(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
            if found:
                return found
        return None
    return None if old == new else (name, old, new)
