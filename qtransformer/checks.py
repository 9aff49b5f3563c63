"""Whether settings, data and checkpoints go together: what is refused, or told, before anything runs."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from qtransformer.config import TrainConfig, ValueConfig
from qtransformer.errors import ConfigError, SpecMismatchError
from qtransformer.types import ActionSpec, ObservationSpec, rename_hint

UNTOLD_UNITS = ("1", "unknown")
"""What readers say of values whose files give no unit."""
MOST_TOLD = 8
"""Names of a specification up to which all are told."""
MIN_SPANNED = 4
"""Bins of a continuous action over which data should spread: within a bin, actions are one and the same."""


def refuse_several_processes() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        raise ConfigError(
            f"expected one process for a training, found {torch.distributed.get_world_size()} of torch.distributed: they exchange "
            "no gradients, so each would train a network of its own; start one training a GPU (device=cuda:1), or one alone"
        )


def refuse_nothing_to_imitate(config: TrainConfig, success_rate: float) -> None:
    """Without a success, a classifier that learns from successes alone would stay as it was drawn, and proposals with it."""
    of_successes = config.targets.behavior_success_only and config.learns_behavior
    if success_rate == 0 and (of_successes or (config.clones_at(0) and config.bc_filter_success)):
        raise ConfigError(
            "what to imitate is learned from successful episodes alone, and no episode of these data is marked successful; mark "
            "them (`success=` of the dataset, `qtransformer data relabel`), or set targets.behavior_success_only=false and "
            "bc_filter_success=false to imitate all of them"
        )


def refuse_initial_beyond_the_range(asked: ValueConfig) -> None:
    """Of what is asked for; of a range that has moved since, the first value may lie outside."""
    low, high, initial = asked.v_min, asked.v_max, asked.initial
    if initial is not None and ((low is not None and initial < low) or (high is not None and initial > high)):
        raise ConfigError(f"value.initial={initial} must lie in the range of values, found [{low}, {high}]")


def refuse_shifts_beyond_the_image(max_shift: int, spec: ObservationSpec) -> None:
    for camera, shape in spec.cameras.items():
        if max_shift >= min(shape[:2]):
            raise ConfigError(
                f"optim.max_shift={max_shift} would move all of camera '{camera}' out of its {shape[0]} x {shape[1]} pixels; "
                "lower it"
            )


def warn_of_no_surprise(config: TrainConfig, stats: Any) -> None:
    """Where steps that go on may earn as much as an episode can, nothing that happens is less than what a reward may explain."""
    if config.targets.surprise and 0 < stats.going_on_reward_max >= stats.return_max:
        warnings.warn(
            f"targets.surprise={config.targets.surprise} has no effect: a step after which the episode may go on earns up to "
            f"{stats.going_on_reward_max:g}, as much as a whole episode, so a drop in value can always be explained by reward. If "
            "successes end their episodes, mark them terminated (`dones=terminated` of robomimic files)",
            stacklevel=3,
        )


def warn_of_coarse_bins(bins: int, spec: ActionSpec, stats: Any) -> None:
    """Say which actions are almost all one to the policy, because the data use little of their limits."""
    spanned = (stats.action_max - stats.action_min) / 2 * bins
    dims = zip(spec.names, spec.discrete, spanned, strict=True)
    coarse = {name: used for name, values, used in dims if not values and 0 < used < MIN_SPANNED}
    if coarse:
        ends = zip(spec.names, spec.to_units(stats.action_min), spec.to_units(stats.action_max), strict=True)
        narrow = ",".join(f"{name}:[{low:.4g},{high:.4g}]" for name, low, high in ends if name in coarse)
        told = ", ".join(f"'{name}' uses only {used:.2g} of {bins} bins" for name, used in coarse.items())
        warnings.warn(
            f"in these data {told} between the limits of actions, and the policy knows one action per bin: narrow limits to what "
            f"the data use (limits:{{{narrow}}} with clip_actions:true in the dataset's mapping where the data do not say their "
            "limits themselves; of a bag, the contract) or raise model.action_bins",
            stacklevel=3,
        )


def mirrored_dims(names: Sequence[str], action: ActionSpec, observation: ObservationSpec) -> list[int]:
    """Indices of the action dimensions that `optim.mirror` names.

    Raises:
        ConfigError: there is none of that name, it has no mirror image (a switch, limits that are not symmetric), or there is no
            camera whose image would be mirrored with it.
    """
    for name in names:
        if name not in action.names:
            raise ConfigError(f"optim.mirror: there is no action dimension '{name}'; the data have {', '.join(action.names)}")
        low, high, switch = (of[action.names.index(name)] for of in (action.low, action.high, action.discrete))
        if switch:
            raise ConfigError(f"optim.mirror: '{name}' is a switch of {switch} values; only continuous dimensions can be mirrored")
        if low != -high:
            raise ConfigError(f"optim.mirror: '{name}' has the limits [{low}, {high}]; only symmetric ones can be mirrored")
    if names and not observation.cameras:
        raise ConfigError(f"optim.mirror: {', '.join(names)} would be mirrored without an image to mirror: the data have no camera")
    return [action.names.index(name) for name in names]


def _told_units(one: ObservationSpec, other: ObservationSpec) -> tuple[dict[str, str], dict[str, str]]:
    """Units of the proprioceptive values of which both tell one."""
    ours, theirs = (
        {name: unit for name, unit in zip(spec.proprio_names, spec.proprio_units, strict=True) if unit not in UNTOLD_UNITS}
        for spec in (one, other)
    )
    return {k: v for k, v in ours.items() if k in theirs}, {k: v for k, v in theirs.items() if k in ours}


def check_specs(
    action: ActionSpec,
    observation: ObservationSpec,
    other_action: ActionSpec,
    other_observation: ObservationSpec,
    where: str,
) -> None:
    """Refuse to join a checkpoint with data or an environment it was not made for; the error lists every difference."""
    pairs = [
        ("cameras", dict(observation.cameras), dict(other_observation.cameras)),
        ("proprioception", observation.proprio_names, other_observation.proprio_names),
        ("proprioception's units", *_told_units(observation, other_observation)),
        ("control_hz", observation.control_hz, other_observation.control_hz),
        ("action names", action.names, other_action.names),
        ("action lower limits", action.low, other_action.low),
        ("action upper limits", action.high, other_action.high),
        ("action units", action.units, other_action.units),
        ("action switches", action.discrete, other_action.discrete),
    ]
    if action.names != other_action.names:  # what follows from that is no news
        pairs = [(name, a, b) for name, a, b in pairs if not name.startswith("action") or name == "action names"]
    differences = [f"{name}: expected {_told(a)}, found {_told(b)}" for name, a, b in pairs if a != b]
    if differences:
        differences += filter(None, [rename_hint(observation, other_observation)])
        raise SpecMismatchError(
            f"{where} does not fit: {'; '.join(differences)}. Use the data or the environment (env=your.module:make_env) that it "
            "was made for, or train afresh"
        )


def _told(value: Any) -> str:
    """A specification's part as text, of many names the number and the first and last."""
    if isinstance(value, tuple) and len(value) > MOST_TOLD:
        return f"{len(value)} ({', '.join(map(repr, value[: MOST_TOLD // 2]))} ... {value[-1]!r})"
    return str(value)
