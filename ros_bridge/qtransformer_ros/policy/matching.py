"""Whether a checkpoint and a topic contract speak of the same robot: asked before anything moves."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from qtransformer.errors import SpecMismatchError
from qtransformer.types import ActionSpec, ObservationSpec
from qtransformer_datasets.rosbag.topic_contract import TopicContract


def matched(contract: TopicContract, action: ActionSpec, observation: ObservationSpec) -> TopicContract:
    """The contract, reduced to the cameras the policy looks at, if all else agrees with what it was trained on.

    Raises:
        SpecMismatchError: names every difference of cameras, image sizes, proprioception, actions, units, order, limits and rate.
    """
    found = [*_cameras(contract, observation), *_proprio(contract, observation), *_action(contract, action)]
    if not math.isclose(contract.control_hz, observation.control_hz, rel_tol=1e-6):
        found.append(f"control_hz: the policy acts at {observation.control_hz:g} Hz, the contract says {contract.control_hz:g} Hz")
    if found:
        raise SpecMismatchError(
            f"the checkpoint and the contract differ in {len(found)} {'place' if len(found) == 1 else 'places'}:\n  "
            + "\n  ".join(found)
            + "\nUse the contract the training data was read with, or a policy trained for this one."
        )
    return replace(contract, cameras={name: contract.cameras[name] for name in observation.cameras})


def _cameras(contract: TopicContract, observation: ObservationSpec) -> Iterator[str]:
    for name, (height, width, _) in observation.cameras.items():
        camera = contract.cameras.get(name)
        if camera is None:
            yield f"camera '{name}': the policy looks at it, the contract has {_listed(contract.cameras)}"
        elif camera.size is not None and camera.size != (height, width):
            yield (
                f"camera '{name}': the policy expects {height} x {width} (height x width), the contract says "
                f"{camera.size[0]} x {camera.size[1]}"
            )


def _proprio(contract: TopicContract, observation: ObservationSpec) -> Iterator[str]:
    expected, found = observation.proprio_names, contract.proprio_names
    yield from _names("proprio", expected, found)
    units = dict(zip(found, contract.proprio_units, strict=True))
    for name, unit in zip(expected, observation.proprio_units, strict=True):
        if units.get(name, unit) != unit:
            yield f"proprio '{name}': the policy expects [{unit}], the contract says [{units[name]}]"


def _action(contract: TopicContract, action: ActionSpec) -> Iterator[str]:
    yield from _names("action", action.names, contract.action_names)
    if set(contract.action_names) != set(action.names):
        return
    places = [action.names.index(name) for name in contract.action_names]
    spec = contract.action_spec([(action.low[i], action.high[i]) for i in places])  # where the contract says no limits, ours
    for j, i in enumerate(places):
        yield from _dimension(action, i, spec, j)


def _dimension(policy: ActionSpec, i: int, contract: ActionSpec, j: int) -> Iterator[str]:
    what, unit = f"action '{policy.names[i]}'", policy.units[i]
    if contract.units[j] != unit:
        yield f"{what}: the policy gives [{unit}], the contract says [{contract.units[j]}]"
    if contract.discrete[j] != policy.discrete[i]:
        yield f"{what}: the policy has {_kind(policy.discrete[i])}, the contract says {_kind(contract.discrete[j])}"
    ours, theirs = [policy.low[i], policy.high[i]], [contract.low[j], contract.high[j]]
    if not all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9) for a, b in zip(ours, theirs, strict=True)):
        yield f"{what}: the policy's limits are {ours}, the contract's {theirs} [{unit}]"


def _names(what: str, expected: Sequence[str], found: Sequence[str]) -> Iterator[str]:
    missing, extra = [n for n in expected if n not in found], [n for n in found if n not in expected]
    if missing:
        yield f"{what}: the contract lacks {_listed(missing)}"
    if extra:
        yield f"{what}: the policy knows no {_listed(extra)}"
    if not missing and not extra and tuple(expected) != tuple(found):
        yield f"{what}: the policy's order is {_listed(expected)}, the contract's {_listed(found)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"


def _kind(discrete: int) -> str:
    return f"a switch of {discrete} values" if discrete else "a continuous dimension"
