"""The stream of frames: all episodes of one or more sources end to end, in flat arrays. See `qtransformer.batch`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from qtransformer.errors import DatasetError
from qtransformer.types import ActionSpec, Episode, EpisodeSource, ObservationSpec
from qtransformer_datasets.episode_check import check_episode


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """`N` frames: T + 1 for every episode of T steps, the last without an action.

    Arrays are shared, not copied: do not write into them.
    """

    images: dict[str, np.ndarray]
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


def load_frames(sources: Sequence[EpisodeSource], discount: float) -> tuple[Frames, list[EpisodeRecord]]:
    """Read every episode once, straight into arrays sized beforehand: memory never holds the images twice."""
    lengths = [length for source in sources for length in _lengths(source)]
    if not lengths:
        raise DatasetError("expected at least one episode, found none; check that the source is not empty")
    frames = _allocate(sum(lengths) + len(lengths), sources[0].action_spec, sources[0].observation_spec)
    instructions, records, start = dict[str, int](), list[EpisodeRecord](), 0
    for episode, where in _episodes(sources):
        check_episode(episode, sources[0].action_spec, sources[0].observation_spec, where)
        if len(records) == len(lengths) or len(episode) != lengths[len(records)]:
            raise DatasetError(f"{where}: the number or length of episodes changed while reading; let the writer finish first")
        _place(frames, start, episode)
        frames["instruction_id"][start : start + len(episode) + 1] = instructions.setdefault(episode.instruction, len(instructions))
        records.append(EpisodeRecord(start, len(episode), episode.success, episode.has_final_observation, episode.info))
        start += len(episode) + 1
    if len(records) != len(lengths):
        raise DatasetError(f"expected {len(lengths)} episodes, the source gave {len(records)}; let the writer finish first")
    frames["mc_return"] = discounted_returns(frames["rewards"], frames["has_action"], discount)
    return Frames(**frames, instructions=tuple(instructions)), records


def discounted_returns(rewards: np.ndarray, has_action: np.ndarray, discount: float) -> np.ndarray:
    """Return-to-go per frame, float32 (N,); a final observation is worth 0, which is also where episodes part."""
    returns, ahead = np.zeros(len(rewards), np.float64), 0.0
    for i in range(len(rewards) - 1, -1, -1):
        ahead = float(rewards[i]) + discount * ahead if has_action[i] else 0.0
        returns[i] = ahead
    return returns.astype(np.float32)


def array_fields(frames: Frames) -> Iterable[tuple[str, np.ndarray]]:
    """Names and arrays of everything but images and instructions."""
    for field in fields(frames):
        value = getattr(frames, field.name)
        if isinstance(value, np.ndarray):
            yield field.name, value


def _lengths(source: EpisodeSource) -> list[int]:
    """Declared lengths where the source knows them, else those of a first reading."""
    declared = getattr(source, "lengths", None)
    return [len(episode) for episode in source] if declared is None else list(declared)


def _episodes(sources: Sequence[EpisodeSource]) -> Iterable[tuple[Episode, str]]:
    for source in sources:
        label = getattr(source, "path", type(source).__name__)
        for index, episode in enumerate(source):
            yield episode, f"{label}, episode {index}"


def _allocate(count: int, action_spec: ActionSpec, spec: ObservationSpec) -> dict[str, Any]:
    try:
        images = {camera: np.empty((count, *shape), np.uint8) for camera, shape in spec.cameras.items()}
    except (MemoryError, ValueError) as error:
        raise DatasetError(f"{count} frames do not fit into memory ({error}); use fewer episodes or smaller images") from error
    return {
        "images": images,
        "proprio": np.zeros((count, len(spec.proprio_names)), np.float32),
        "actions": np.zeros((count, len(action_spec)), np.float32),
        "rewards": np.zeros(count, np.float32),
        **{name: np.zeros(count, bool) for name in ("terminated", "truncated", "has_action", "lost_final", "success")},
        "episode_start": np.zeros(count, np.int64),
        "instruction_id": np.zeros(count, np.int64),
    }


def _place(frames: dict[str, Any], start: int, episode: Episode) -> None:
    stop = start + len(episode)
    for camera, rows in episode.images.items():
        frames["images"][camera][start : stop + 1] = rows
    frames["proprio"][start : stop + 1] = episode.proprio
    for name in ("actions", "rewards", "terminated", "truncated"):
        frames[name][start:stop] = getattr(episode, name)
    frames["has_action"][start:stop] = True
    frames["lost_final"][stop - 1] = episode.truncated[-1] and not episode.terminated[-1] and not episode.has_final_observation
    frames["success"][start : stop + 1] = episode.success
    frames["episode_start"][start : stop + 1] = start
