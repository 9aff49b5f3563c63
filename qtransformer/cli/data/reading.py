"""What the data verbs share: the source asked for, a progress bar, and results as JSON."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from qtransformer.files import write_json
from qtransformer_datasets.data_source import DataSource, check_options

MOST_LISTED = 12


def data_source(path: str, format: str, settings: Any) -> DataSource:
    """The dataset at a path, read as the settings say; an option that nobody knows is refused here."""
    source = DataSource.parse({"path": path, "format": format, **settings.options}, where=path)
    check_options(source, beside=[item.name for item in fields(settings) if item.name not in ("options", "out_options")])
    return source


def episode_bar(what: str) -> Callable[[Iterable[int]], Iterable[int]]:
    """Shows a progress bar over episodes, where there is a terminal to show it."""
    return lambda indices: tqdm(indices, desc=what, unit="episode", disable=None)


@contextmanager
def counted_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """The same for a count that somebody else keeps: what it gives is called with the episodes done, and with all."""
    with tqdm(desc=what, unit="episode", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def save_json(path: str, data: Any) -> None:
    """Write a result where one was asked for."""
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(path), data)


def count(number: int, noun: str) -> str:
    """`1 episode`, `2 episodes`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(items: Sequence[Any]) -> str:
    """Items as text, those beyond `MOST_LISTED` only counted."""
    more = f" and {len(items) - MOST_LISTED} more" if len(items) > MOST_LISTED else ""
    return ", ".join(map(str, items[:MOST_LISTED])) + more
