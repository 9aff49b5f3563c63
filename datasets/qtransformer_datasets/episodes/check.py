"""What every episode must be, whichever file or robot it came from. Writer, readers and dataset all ask here."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qtransformer.errors import DatasetError, QTransformerError, SpecMismatchError
from qtransformer.types import ActionSpec, Episode, ObservationSpec, rename_hint

ACTION_TOLERANCE = 1e-6
"""Rounding allowed beyond [-1, 1] in scaled actions."""
LONGEST_PAUSE = 5.0
"""In periods, of control or of the episode's own steps (the longer counts): what lies further apart has a hole between."""
MOST_TOLD = 8
"""Entries of a specification's part up to which all are told."""


class ProblemsError(DatasetError):
    """Several things that are wrong, a sentence each in `problems`, which `data validate` and `data inspect` list in full."""

    def __init__(self, problems: list[str], message: str = "") -> None:
        """`message`: by default the first problem."""
        super().__init__(message or problems[0])
        self.problems = problems


def problems_of(error: QTransformerError) -> list[str]:
    """All that an error tells."""
    return error.problems if isinstance(error, ProblemsError) else [str(error)]


def check_episode(
    episode: Episode,
    action_spec: ActionSpec,
    observation_spec: ObservationSpec,
    where: str,
    widening: Callable[[Sequence[str]], str] = lambda names: "",
) -> None:
    """Raise a ProblemsError, each problem starting with `where` (file and episode), unless all is well.

    Every part of the episode is looked at, and the first thing wrong with each is told. `widening` is the option by which limits
    of these actions would hold all of the dataset; empty where there is none.
    """
    if len(episode) == 0:
        raise ProblemsError([f"{where}: expected at least one step, found none; remove the episode"])
    checks: list[Callable[[], None]] = [
        lambda: _check_actions(episode, action_spec, where, widening),
        lambda: _check_numbers(episode.rewards, (len(episode),), "rewards", where),
        lambda: _check_numbers(episode.proprio, (len(episode) + 1, len(observation_spec.proprio_names)), "proprio", where),
        lambda: _check_cameras(episode, observation_spec, where),
        *(lambda name=name: _check_images(episode, observation_spec, name, where) for name in observation_spec.cameras),
        lambda: _check_ends(episode, where),
        lambda: _check_timestamps(episode, 1.0 / observation_spec.control_hz, where),
    ]
    problems = [message for check in checks if (message := _complaint(check))]
    if problems:
        raise ProblemsError(problems)


def check_same_specs(expected: tuple[ActionSpec, ObservationSpec], found: tuple[ActionSpec, ObservationSpec], where: str) -> None:
    """Raise a SpecMismatchError listing every field in which two pairs of specs differ, both sides of it."""
    differences = []
    for old, new in zip(expected, found, strict=True):
        old_fields, new_fields = old.to_dict(), new.to_dict()
        differences += [
            f"{type(old).__name__}.{name} differs: {_told_difference(value, new_fields[name])}"
            for name, value in old_fields.items()
            if new_fields[name] != value
        ]
    if differences:
        differences += filter(None, [rename_hint(expected[1], found[1])])
        raise SpecMismatchError(f"{where}: {'; '.join(differences)}; episodes logged under different specs cannot share a dataset")


def _told_difference(expected: Any, found: Any) -> str:
    """Of long lists how many differ, and the first that does; numbers by six digits where these tell them apart."""
    if isinstance(expected, list) and isinstance(found, list) and max(len(expected), len(found)) > MOST_TOLD:
        if len(expected) != len(found):
            return f"expected {len(expected)} ({_text(expected[0])} ...), found {len(found)} ({_text(found[0])} ...)"
        unlike = [i for i, pair in enumerate(zip(expected, found, strict=True)) if pair[0] != pair[1]]
        first = unlike[0]
        return f"{len(unlike)} of {len(found)}, the first at {first}: {_told_difference(expected[first], found[first])}"
    texts = _text(expected), _text(found)
    return "expected {}, found {}".format(*(texts if texts[0] != texts[1] else (expected, found)))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def clip_actions(actions: np.ndarray, spec: ActionSpec) -> tuple[np.ndarray, dict[str, float]]:
    """Actions moved into [-1, 1], and for each dimension that needed it, which share of its steps did.

    Actions of a wrong shape stay as they are, for `check_episode` to refuse.
    """
    if actions.ndim != 2 or actions.shape[1] != len(spec):
        return actions, {}
    return np.clip(actions, -1.0, 1.0), _share_outside(actions, spec)


def _share_outside(actions: np.ndarray, spec: ActionSpec) -> dict[str, float]:
    shares = (np.abs(actions) > 1.0 + ACTION_TOLERANCE).mean(0)
    return {name: float(share) for name, share in zip(spec.names, shares, strict=True) if share > 0}


def _check_shape(array: np.ndarray, shape: tuple[int, ...], name: str, where: str) -> None:
    if array.shape != shape:
        raise DatasetError(
            f"{where}: {name} expected shape {shape}, found {array.shape}; its length must match the actions, its width the spec"
        )


def _complaint(check: Callable[[], None]) -> str:
    try:
        check()
    except DatasetError as error:
        return str(error)
    return ""


def _check_numbers(array: np.ndarray, shape: tuple[int, ...], name: str, where: str) -> None:
    _check_shape(array, shape, name, where)
    _check_finite(array, name, where)


def _check_finite(array: np.ndarray, name: str, where: str) -> None:
    if array.dtype != np.float32:
        raise DatasetError(f"{where}: {name} expected float32, found {array.dtype}; convert before logging")
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise DatasetError(
            f"{where}: {name} expected finite numbers, found NaN or infinity first in row {row}; repair or remove the episode"
        )


def _check_actions(episode: Episode, spec: ActionSpec, where: str, widening: Callable[[Sequence[str]], str]) -> None:
    actions = episode.actions
    _check_numbers(actions, (len(episode), len(spec)), "actions", where)
    outside = _share_outside(actions, spec)
    if outside:
        values = spec.to_units(actions)
        told = (_told_outside(spec, spec.names.index(name), share, values) for name, share in outside.items())
        wider = widening(list(outside))
        mend = (
            f"give limits that hold all of the dataset: {wider}" if wider else "scale them with ActionSpec.to_scaled before logging"
        )
        raise DatasetError(
            f"{where}: actions beyond their limits: {', '.join(told)}; {mend}, or move them onto these: clip_actions:true"
        )


def _told_outside(spec: ActionSpec, dim: int, share: float, values: np.ndarray) -> str:
    """In the action's unit, as users know it."""
    unit = f" {spec.units[dim]}" if spec.units[dim] not in ("1", "unknown") else ""
    low, high = values[:, dim].min(), values[:, dim].max()
    return (
        f"'{spec.names[dim]}' in {100 * share:.1f} % of the steps (from {low:.4g} to {high:.4g}{unit}, "
        f"limits [{spec.low[dim]:.6g}, {spec.high[dim]:.6g}])"
    )


def _check_cameras(episode: Episode, spec: ObservationSpec, where: str) -> None:
    if set(episode.images) != set(spec.cameras):
        raise DatasetError(
            f"{where}: expected cameras {sorted(spec.cameras)}, found {sorted(episode.images)}; log every camera of the spec"
        )


def _check_images(episode: Episode, spec: ObservationSpec, name: str, where: str) -> None:
    if name not in episode.images:
        return  # told by _check_cameras
    images, shape = episode.images[name], spec.cameras[name]
    if images.dtype != np.uint8:
        raise DatasetError(f"{where}: camera '{name}' expected uint8 RGB, found {images.dtype}; convert to 0..255 before logging")
    if images.shape[1:] == (shape[2], *shape[:2]) != shape:
        raise DatasetError(
            f"{where}: camera '{name}' expected (h, w, 3) images {shape}, found channels first {images.shape[1:]}; "
            "move the channel axis last before logging"
        )
    _check_shape(images, (len(episode) + 1, *shape), f"camera '{name}'", where)


def _check_ends(episode: Episode, where: str) -> None:
    for name in ("terminated", "truncated"):
        flags = getattr(episode, name)
        _check_shape(flags, (len(episode),), name, where)
        if flags.dtype != np.bool_:
            raise DatasetError(f"{where}: {name} expected bool, found {flags.dtype}; convert before logging")
        if flags[:-1].any():
            raise DatasetError(
                f"{where}: only the last step may be {name}, found step {int(flags.argmax())} of {len(flags)}; "
                "split the log where episodes end"
            )
    if not (episode.terminated[-1] or episode.truncated[-1]):
        raise DatasetError(
            f"{where}: the last step is neither terminated nor truncated; an episode that simply stops is truncated: say so"
        )


def _check_timestamps(episode: Episode, period: float, where: str) -> None:
    timestamps = episode.timestamps
    if timestamps is None:
        return
    _check_shape(timestamps, (len(episode) + 1,), "timestamps", where)
    if timestamps.dtype != np.float64 or not np.isfinite(timestamps).all():
        raise DatasetError(f"{where}: timestamps expected finite float64 seconds, found {timestamps.dtype} or NaN; repair the log")
    steps = np.diff(timestamps)
    late = np.flatnonzero(steps <= 0)
    if len(late):
        raise DatasetError(
            f"{where}: timestamps expected to increase, found {timestamps[late[0]]:.6f} s then {timestamps[late[0] + 1]:.6f} s "
            f"in rows {late[0]} and {late[0] + 1}; split or repair the episode"
        )
    period = max(period, float(np.median(steps)))
    holes = np.flatnonzero(steps > LONGEST_PAUSE * period)
    if len(holes):
        raise DatasetError(
            f"{where}: timestamps expected about {period:.4g} s apart, found {steps[holes[0]]:.4g} s between rows {holes[0]} and "
            f"{holes[0] + 1}{f' and {len(holes) - 1} more such holes' if len(holes) > 1 else ''}: no step leads across; split the "
            "episode there (of a bag: on_gap:split with a lower tolerance_s), or leave it out"
        )
