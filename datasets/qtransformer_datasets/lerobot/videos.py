"""Which part of which video shows an episode. LeRobot v2 keeps a file per episode; v3 says so in `meta/episodes`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from qtransformer.errors import DatasetError
from qtransformer_datasets.lerobot.episode_rows import EPISODE
from qtransformer_datasets.lerobot.layout import Layout, PathTemplate
from qtransformer_datasets.lerobot.parquet_guard import open_parquet, parquet_errors, values

EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
SPAN_FIELDS = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


class _Span(NamedTuple):
    chunk: int
    file: int
    start: float
    """[s] in the file."""
    stop: float


class EpisodeVideos:
    """Looks up videos by camera key and episode index."""

    def __init__(self, layout: Layout, keys: Sequence[str], file_numbers: Mapping[int, Mapping[str, int]]) -> None:
        """`file_numbers`: what the name of each episode's data file says, by placeholder."""
        self._layout, self._file_numbers = layout, file_numbers
        self._spans = _read_spans(layout, keys) if layout.major == 3 and keys else {}
        self._shared = _shared(self._spans, 0.5 / layout.fps)

    def find(self, key: str, episode: int, rows: int, where: str) -> tuple[Path, float]:
        """The file, and the time [s] in it at which the episode begins."""
        if self._layout.major == 2:
            return self._file(key, {**self._file_numbers[episode], EPISODE: episode}, where), 0.0
        span = self._spans.get((key, episode))
        if span is None:
            raise DatasetError(f"{where}: meta/episodes does not say where its video is; restore meta/episodes from its source")
        other = self._shared.get((key, episode))
        if other is not None:
            raise DatasetError(f"{where}: meta/episodes gives the same part of a video to episode {other}; remove both episodes")
        shown = (span.stop - span.start) * self._layout.fps
        if abs(shown - rows) >= 1.0:
            raise DatasetError(
                f"{where}: has {rows} rows, but meta/episodes gives it {shown:.1f} frames of video; one of them belongs to "
                "another episode: remove the episode"
            )
        return self._file(key, {"chunk_index": span.chunk, "file_index": span.file}, where), span.start

    def _file(self, key: str, numbers: Mapping[str, int], where: str) -> Path:
        try:
            return self._layout.inside(self._layout.video_path.fill(video_key=key, **numbers))
        except KeyError as error:
            raise DatasetError(f"{where}: video_path has a placeholder {error} that data_path does not have; correct it") from error


def _read_spans(layout: Layout, keys: Sequence[str]) -> dict[tuple[str, int], _Span]:
    spans: dict[tuple[str, int], _Span] = {}
    for path, _ in PathTemplate(EPISODES_PATH, "").find(layout.root):
        layout.inside(path.relative_to(layout.root).as_posix())
        names = [f"videos/{key}/{field}" for key in keys for field in SPAN_FIELDS]
        with open_parquet(path) as file, parquet_errors(str(path)):
            table = file.read(columns=[EPISODE, *names])
            episodes = values(table, EPISODE, str(path))
            for key in keys:
                columns = [values(table, f"videos/{key}/{field}", str(path)) for field in SPAN_FIELDS]
                for episode, *fields in zip(episodes, *columns, strict=True):
                    if (key, episode) in spans:
                        raise DatasetError(f"{path}: episode {episode} is described twice; remove one of the descriptions")
                    spans[key, int(episode)] = _span(fields, f"{path}, episode {episode}")
    return spans


def _span(fields: list[Any], where: str) -> _Span:
    chunk, file, start, stop = fields
    if None in fields or not 0 <= start < stop < float("inf"):
        raise DatasetError(f"{where}: expected file and times of its video, found {fields}; restore meta/episodes from its source")
    return _Span(int(chunk), int(file), float(start), float(stop))


def _shared(spans: Mapping[tuple[str, int], _Span], slack: float) -> dict[tuple[str, int], int]:
    """Episodes whose part of a video overlaps that of another episode, with that other one."""
    files: dict[tuple[str, int, int], list[tuple[float, float, int]]] = defaultdict(list)
    for (key, episode), span in spans.items():
        files[key, span.chunk, span.file].append((span.start, span.stop, episode))
    shared: dict[tuple[str, int], int] = {}
    for (key, _, _), parts in files.items():
        parts.sort()
        for (_, stop, episode), (start, _, follower) in pairwise(parts):
            if start < stop - slack:
                shared[key, episode], shared[key, follower] = follower, episode
    return shared
