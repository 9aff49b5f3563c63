"""The stream of frames: all episodes of one or more sources end to end, in flat arrays. See `qtransformer.batch`."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from qtransformer.errors import DatasetError
from qtransformer.returns import returns_to_go
from qtransformer.types import ActionSpec, Episode, EpisodeSource, ObservationSpec
from qtransformer_datasets.episodes.check import check_episode
from qtransformer_datasets.stream.image_rows import ImageRows
from qtransformer_datasets.stream.memory import machine_memory

ArrayLayout = Mapping[str, tuple[tuple[int, ...], type]]
"""Name of an array to the shape of one of its rows and its type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """`N` frames: T + 1 for every episode of T steps, the last without an action.

    Arrays are shared, not copied: do not write into them.
    """

    images: dict[str, ImageRows]
    """Camera name to uint8 (N, h, w, 3), RGB."""
    proprio: np.ndarray
    """float32 (N, p)."""
    actions: np.ndarray
    """float32 (N, n), scaled to [-1, 1]; zero where there is no action."""
    rewards: np.ndarray
    """float32 (N,)."""
    terminated: np.ndarray
    """bool (N,)."""
    truncated: np.ndarray
    """bool (N,). A step that is also terminated is not bootstrapped."""
    has_action: np.ndarray
    """bool (N,): false on final observations."""
    lost_final: np.ndarray
    """bool (N,): a truncated, not terminated step whose final observation the log lost."""
    mc_return: np.ndarray
    """float32 (N,): discounted return-to-go within the episode; 0 on final observations."""
    success: np.ndarray
    """bool (N,): whether the frame's episode succeeded."""
    episode_start: np.ndarray
    """int64 (N,): the first frame of the frame's episode."""
    instruction_id: np.ndarray
    """int64 (N,): index into `instructions`."""
    source_id: np.ndarray
    """int64 (N,): which of the dataset's sources the frame came from."""
    timestamps: np.ndarray
    """float64 (N,) [s]: when the observation was made; NaN where the log holds no times."""
    instructions: tuple[str, ...]
    """Distinct instructions, in order of appearance."""

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True, slots=True)
class EpisodeRecord:
    """What an episode knows beside its frames."""

    start: int
    """Its first frame."""
    length: int
    """Its steps; it has one frame more."""
    success: bool
    has_final_observation: bool
    info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SourceFrames:
    """The frames of one source, as logged: what memory and cache both give."""

    images: dict[str, ImageRows]
    arrays: dict[str, np.ndarray]
    """The fields of `Frames` that `row_layout` names; `episode_start` and `instruction_id` count within this source."""
    instructions: tuple[str, ...]
    records: list[EpisodeRecord]


def row_layout(action_spec: ActionSpec, spec: ObservationSpec) -> ArrayLayout:
    """The arrays that are kept beside the images."""
    return {
        "proprio": ((len(spec.proprio_names),), np.float32),
        "actions": ((len(action_spec),), np.float32),
        "rewards": ((), np.float32),
        **dict.fromkeys(("terminated", "truncated", "has_action", "lost_final", "success"), ((), np.bool_)),
        "episode_start": ((), np.int64),
        "instruction_id": ((), np.int64),
        "timestamps": ((), np.float64),
    }


def episode_rows(episode: Episode, layout: ArrayLayout, start: int, instruction_id: int) -> dict[str, np.ndarray]:
    """The rows of `layout` of one episode that begins at frame `start`: T steps and the final observation."""
    length = len(episode)
    rows = {name: np.zeros((length + 1, *shape), kind) for name, (shape, kind) in layout.items()}
    for name in ("actions", "rewards", "terminated", "truncated"):
        rows[name][:length] = getattr(episode, name)
    rows["proprio"][:] = episode.proprio
    rows["has_action"][:length] = True
    rows["lost_final"][length - 1] = episode.truncated[-1] and not episode.terminated[-1] and not episode.has_final_observation
    rows["success"][:] = episode.success
    rows["episode_start"][:] = start
    rows["instruction_id"][:] = instruction_id
    rows["timestamps"][:] = np.nan if episode.timestamps is None else episode.timestamps
    return rows


def logged_episode(
    arrays: Mapping[str, np.ndarray], instructions: Sequence[str], record: EpisodeRecord, images: dict[str, np.ndarray]
) -> Episode:
    """The inverse of `episode_rows`: an episode of views of the arrays, with the images given."""
    steps, rows = slice(record.start, record.start + record.length), slice(record.start, record.start + record.length + 1)
    return Episode(
        images=images,
        **{name: arrays[name][steps] for name in ("actions", "rewards", "terminated", "truncated")},
        proprio=arrays["proprio"][rows],
        timestamps=None if np.isnan(arrays["timestamps"][record.start]) else arrays["timestamps"][rows],
        instruction=instructions[int(arrays["instruction_id"][record.start])],
        success=record.success,
        has_final_observation=record.has_final_observation,
        info=record.info,
    )


def checked_episodes(
    source: EpisodeSource, episodes: Iterable[Episode], lengths: Sequence[int], first: int = 0
) -> Iterator[Episode]:
    """Episodes `first` and on of a source, each checked; their number and lengths must be those that were declared."""
    label, index = getattr(source, "path", type(source).__name__), first
    for index, episode in enumerate(episodes, first):
        where = f"{label}, episode {index}"
        check_episode(episode, source.action_spec, source.observation_spec, where)
        if index >= len(lengths) or len(episode) != lengths[index]:
            raise DatasetError(f"{where}: the number or length of episodes changed while reading; let the writer finish first")
        yield episode
        index += 1
    if index != len(lengths):
        raise DatasetError(f"{label}: expected {len(lengths)} episodes, the source gave {index}; let the writer finish first")


def read_into_memory(source: EpisodeSource) -> SourceFrames:
    """Read every episode once, straight into arrays sized beforehand: memory never holds the images twice."""
    lengths, layout = declared_lengths(source), row_layout(source.action_spec, source.observation_spec)
    images, arrays = _allocate(sum(lengths) + len(lengths), source.observation_spec, layout)
    instructions, records, start = dict[str, int](), list[EpisodeRecord](), 0
    for episode in checked_episodes(source, source, lengths):
        stop = start + len(episode) + 1
        for camera, rows in episode.images.items():
            images[camera][start:stop] = rows
        instruction = instructions.setdefault(episode.instruction, len(instructions))
        for name, rows in episode_rows(episode, layout, start, instruction).items():
            arrays[name][start:stop] = rows
        records.append(EpisodeRecord(start, len(episode), episode.success, episode.has_final_observation, episode.info))
        start = stop
    return SourceFrames({c: ImageRows([rows], [None]) for c, rows in images.items()}, arrays, tuple(instructions), records)


def join(sources: Sequence[SourceFrames], discount: float) -> tuple[Frames, list[EpisodeRecord]]:
    """All sources end to end as one stream. Images are not copied."""
    starts = np.cumsum([0, *(len(source.arrays["rewards"]) for source in sources)])
    if not starts[-1]:
        raise DatasetError("expected at least one episode, found none; check that the source is not empty")
    instructions, parts, records = dict[str, int](), list[dict[str, np.ndarray]](), list[EpisodeRecord]()
    for number, (source, start) in enumerate(zip(sources, starts, strict=False)):
        ids = np.array([instructions.setdefault(text, len(instructions)) for text in source.instructions], np.int64)
        arrays = source.arrays
        changes = {
            "episode_start": arrays["episode_start"] + start,
            "instruction_id": ids[arrays["instruction_id"]],
            "source_id": np.full(len(arrays["rewards"]), number, np.int64),
        }
        parts.append(arrays | changes)
        records += [replace(record, start=record.start + int(start)) for record in source.records]
    arrays = {name: np.concatenate([part[name] for part in parts]) if len(parts) > 1 else parts[0][name] for name in parts[0]}
    images = {camera: ImageRows.joined([source.images[camera] for source in sources]) for camera in sources[0].images}
    returns = discounted_returns(arrays["rewards"], arrays["has_action"], discount)
    return Frames(**arrays, images=images, mc_return=returns, instructions=tuple(instructions)), records


def discounted_returns(
    rewards: np.ndarray, has_action: np.ndarray, discount: float, finals: np.ndarray | None = None
) -> np.ndarray:
    """Return-to-go per frame, float32 (N,); a final observation is where episodes part and worth 0, or what `finals` (N,) says."""
    returns, start = np.zeros(len(rewards)) if finals is None else finals.copy(), 0
    for stop in np.flatnonzero(~has_action):
        returns[start:stop] = returns_to_go(rewards[start:stop], discount, float(returns[stop]))
        start = stop + 1
    return returns.astype(np.float32)


def return_bounds(frames: Frames, discount: float) -> np.ndarray | None:
    """What each frame's return-to-go is at least, had a time limit not cut its episode short: as if the worst reward of the data
    came at every step after it. None where no reward is negative or no episode is cut: `mc_return` is the bound itself."""
    cut, worst = frames.truncated & ~frames.terminated, float(frames.rewards[frames.has_action].min())
    if worst >= 0 or not cut.any():
        return None
    finals = np.zeros(len(frames))
    finals[1:][cut[:-1]] = worst / (1 - discount) if discount < 1 else -np.inf
    return discounted_returns(frames.rewards, frames.has_action, discount, finals)


def array_fields(frames: Frames) -> Iterable[tuple[str, np.ndarray]]:
    """Names and arrays of everything but images and instructions."""
    for field in fields(frames):
        value = getattr(frames, field.name)
        if isinstance(value, np.ndarray):
            yield field.name, value


def declared_lengths(source: EpisodeSource) -> list[int]:
    """Declared lengths where the source knows them, else those of a first reading."""
    declared = getattr(source, "lengths", None)
    return [len(episode) for episode in source] if declared is None else list(declared)


def image_bytes(source: EpisodeSource) -> int:
    """Bytes of all images of a source, as arrays."""
    lengths = declared_lengths(source)
    return (sum(lengths) + len(lengths)) * frame_bytes(source.observation_spec)


def frame_bytes(spec: ObservationSpec) -> int:
    """Bytes of one frame's images."""
    return sum(math.prod(shape) for shape in spec.cameras.values())


def _allocate(count: int, spec: ObservationSpec, layout: ArrayLayout) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    needed, memory = count * frame_bytes(spec), machine_memory()
    if needed > memory:
        raise DatasetError(
            f"{count} frames of images need {needed / 1e9:.1f} GB, this machine has {memory / 1e9:.1f} GB of memory; "
            "read them from a file with cache='always' or 'auto', or use fewer episodes or smaller images"
        )
    try:
        images = {camera: np.empty((count, *shape), np.uint8) for camera, shape in spec.cameras.items()}
    except (MemoryError, ValueError) as error:
        raise DatasetError(f"{count} frames do not fit into memory ({error}); use fewer episodes or smaller images") from error
    return images, {name: np.zeros((count, *shape), kind) for name, (shape, kind) in layout.items()}
