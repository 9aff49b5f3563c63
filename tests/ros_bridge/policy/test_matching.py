from dataclasses import replace
from pathlib import Path

import pytest

from qtransformer.errors import SpecMismatchError
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.policy.matching import matched

KUKA = Path(__file__).parents[3] / "datasets" / "contracts" / "simulated_kuka.yaml"


@pytest.fixture
def contract() -> TopicContract:
    return TopicContract.load(KUKA)


def test_a_policy_of_the_contracts_own_specs_matches(contract) -> None:
    assert matched(contract, contract.action_spec(), contract.observation_spec()) == contract


def test_cameras_nobody_looks_at_are_left_out(contract) -> None:
    more = replace(contract, cameras={**contract.cameras, "ceiling": replace(contract.cameras["wrist"], topic="ceiling")})
    assert matched(more, contract.action_spec(), contract.observation_spec()) == contract


def test_where_the_contract_says_no_limits_the_policys_hold(contract) -> None:
    unlimited = replace(contract, action=tuple(replace(a, low=(), high=()) for a in contract.action))
    matched(unlimited, contract.action_spec(), contract.observation_spec())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": {"front": (64, 64, 3)}}, "camera 'front': the policy looks at it, the contract has 'wrist'"),
        ({"cameras": {"wrist": (64, 48, 3)}}, "'wrist': the policy expects 64 x 48 .*, the contract says 64 x 64"),
        ({"control_hz": 5.0}, "at 5 Hz, the contract says 4 Hz"),
    ],
)
def test_differences_of_what_is_seen_are_named(changes, message, contract) -> None:
    with pytest.raises(SpecMismatchError, match=message):
        matched(contract, contract.action_spec(), replace(contract.observation_spec(), **changes))


def test_differences_of_proprioception_are_named(contract) -> None:
    seen = contract.observation_spec()
    swapped = (seen.proprio_names[1], seen.proprio_names[0], *seen.proprio_names[2:])
    degrees = (*seen.proprio_units[:-1], "deg")
    for spec, message in [
        (replace(seen, proprio_names=(*seen.proprio_names[:-1], "joint_8")), "lacks 'joint_8'\n.*knows no 'joint_7'"),
        (replace(seen, proprio_names=swapped), "the policy's order is 'gripper_y', 'gripper_x'"),
        (replace(seen, proprio_units=degrees), r"'joint_7': the policy expects \[deg\], the contract says \[rad\]"),
    ]:
        with pytest.raises(SpecMismatchError, match=message):
            matched(contract, contract.action_spec(), spec)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("names", "dw", "the contract lacks 'dw'\n.*knows no 'dx'"),
        ("low", -0.04, r"'dx': the policy's limits are \[-0.04, 0.03\], the contract's \[-0.03, 0.03\] \[m\]"),
        ("units", "cm", r"'dx': the policy gives \[cm\], the contract says \[m\]"),
        ("discrete", 3, "'dx': the policy has a switch of 3 values, the contract says a continuous dimension"),
    ],
)
def test_differences_of_actions_are_named(field, value, message, contract) -> None:
    spec = contract.action_spec()
    changed = replace(spec, **{field: (value, *getattr(spec, field)[1:])})
    with pytest.raises(SpecMismatchError, match=message):
        matched(contract, changed, contract.observation_spec())


def test_actions_in_another_order_are_refused(contract) -> None:
    spec = contract.action_spec()
    backwards = replace(spec, **{f: getattr(spec, f)[::-1] for f in ("names", "low", "high", "units", "discrete")})
    with pytest.raises(SpecMismatchError, match=r"1 place:\n.*order is 'terminate', 'gripper'"):
        matched(contract, backwards, contract.observation_spec())


def test_every_difference_is_listed_at_once(contract) -> None:
    action = replace(contract.action_spec(), low=(-1.0,) * 6)
    seen = replace(contract.observation_spec(), cameras={"wrist": (32, 32, 3), "front": (8, 8, 3)}, control_hz=10.0)
    with pytest.raises(SpecMismatchError, match="differ in 9 places"):
        matched(contract, action, seen)
