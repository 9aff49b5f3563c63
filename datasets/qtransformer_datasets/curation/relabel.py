"""Other labels of success: by hand, from a file of numbers and flags, or by a function of the episode."""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from qtransformer.errors import DatasetError, QTransformerError
from qtransformer.types import Episode
from qtransformer_datasets.episodes.protocols import LoggedEpisodes
from qtransformer_datasets.views import EpisodeView

FLAGS = {"true": True, "1": True, "yes": True, "success": True, "false": False, "0": False, "no": False, "failure": False}
MAX_LABEL_BYTES = 1 << 26
LABELS = ("rewards", "terminated", "truncated", "success", "info")
"""What a function may change of an episode."""


def read_labels(path: Path, episodes: int) -> dict[int, bool]:
    """Number of an episode to whether it succeeded, from CSV (columns episode and success) or JSON (`{"0": true}`).

    Raises:
        DatasetError: the file cannot be read, names an episode twice or one that is not there, or says neither yes nor no.
    """
    try:
        if path.stat().st_size > MAX_LABEL_BYTES:
            raise DatasetError(f"{path}: expected a table of labels, found {path.stat().st_size} bytes; check the path")
        rows = _from_json(path) if path.suffix == ".json" else _from_csv(path)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise DatasetError(f"{path}: expected labels as JSON or CSV ({' '.join(str(error).split())}); correct the file") from error
    labels: dict[int, bool] = {}
    for number, flag in rows:
        index = _index(number, episodes, path)
        if index in labels:
            raise DatasetError(f"{path}: episode {index} is listed twice; keep one")
        word = str(flag).strip().lower()
        if word not in FLAGS:
            raise DatasetError(f"{path}: success of episode {index} expected one of {', '.join(FLAGS)}, found {flag!r}; correct it")
        labels[index] = FLAGS[word]
    return labels


def label_by_hand(source: LoggedEpisodes, labels: Mapping[int, bool]) -> EpisodeView:
    """Success as listed; an episode that is not keeps its own."""
    return EpisodeView(source, change=lambda index, episode: replace(episode, success=labels.get(index, episode.success)))


def label_by_function(source: LoggedEpisodes, function: Callable[[Episode], Any], name: str) -> EpisodeView:
    """Success as the function says, or the episode with the labels it gave.

    Raises (while reading):
        DatasetError: the function raises, returns something else, or changes more than labels.
    """

    def apply(index: int, episode: Episode) -> Episode:
        return _apply(function, episode, f"{source.path}, episode {index}: function={name}")

    return EpisodeView(source, change=apply)


def _apply(function: Callable[[Episode], Any], episode: Episode, where: str) -> Episode:
    try:
        result = function(episode)
    except QTransformerError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise DatasetError(f"{where} raised {type(error).__name__}: {error}; correct it") from error
    if isinstance(result, bool | np.bool_):
        return replace(episode, success=bool(result))
    if not isinstance(result, Episode):
        raise DatasetError(f"{where} expected to return true, false or an Episode, found {type(result).__name__}; correct it")
    changed = [
        item.name
        for item in fields(Episode)
        if item.name not in LABELS and getattr(result, item.name) is not getattr(episode, item.name)
    ]
    if changed:
        raise DatasetError(f"{where} may change {', '.join(LABELS)}, it changed {', '.join(changed)}; use dataclasses.replace")
    return result


def _from_json(path: Path) -> list[tuple[Any, Any]]:
    data = json.loads(path.read_text())
    if isinstance(data, list):
        return list(enumerate(data))
    if not isinstance(data, dict):
        raise ValueError(f"found {type(data).__name__}, not a mapping or a list")
    return list(data.items())


def _from_csv(path: Path) -> list[tuple[Any, Any]]:
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        if not {"episode", "success"} <= set(rows.fieldnames or ()):
            raise ValueError(f"its first line must name the columns episode and success, found {rows.fieldnames}")
        return [(row["episode"], row["success"]) for row in rows]


def _index(number: Any, episodes: int, path: Path) -> int:
    text = str(number).strip()
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text) < episodes):
        raise DatasetError(f"{path}: episode expected from 0 to {episodes - 1}, found {number!r}; correct it")
    return int(text)
