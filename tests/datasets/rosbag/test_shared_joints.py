"""Publishers that share one topic of joints: who told what, how old it is, and what contradicts itself.

The arm and the finger of the robot publish on `/joint_states`, each message naming its own joints.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag.reader import BagEpisodes
from qtransformer_datasets.rosbag.report import inspect_bag
from qtransformer_datasets.rosbag.shared_joints import SharedJoints, topic_of

STATES = "/joint_states"
ARM, FINGER = f"{STATES} (joint1 and 6 more)", f"{STATES} (finger)"


def apart(
    robot: Any,
    *,
    arm: Sequence[float],
    finger: Sequence[float],
    finger_latency_ms: float = 3,
    **options: Any,
) -> list[Any]:
    """The robot's demonstration with states from two publishers, at their own times [ms].

    At time t joint k is at t / 10,000 + k / 10, and the finger at t / 100,000.
    """
    sent = [s for s in robot.demonstration(**options) if s.topic != STATES]
    for t in arm:
        own = {joint: t / 10_000 + k / 10 for k, joint in enumerate(robot.JOINTS)}
        order = np.random.default_rng(round(1000 + t)).permutation(robot.JOINTS).tolist()
        sent.append(states(robot, t, robot.joint_state(tuple(order), own)))
    sent += [states(robot, t, robot.joint_state(("finger",), {"finger": t / 100_000}), finger_latency_ms) for t in finger]
    return sent


def states(robot: Any, t: float, fields: Any, latency_ms: float = 3) -> Any:
    """A message stamped `t` [ms] after the start."""
    stamp = robot.START + round(t * robot.MS)
    return robot.Sent(STATES, "sensor_msgs/msg/JointState", stamp + round(latency_ms * robot.MS), stamp, fields)


def proprio(arm: Sequence[float], finger: Sequence[float]) -> np.ndarray:
    """What is observed with the arm and the finger as they were at these times [ms]: float32 (t, 8)."""
    rows = [[a / 10_000 + k / 10 for k in range(7)] + [f / 100_000] for a, f in zip(arm, finger, strict=True)]
    return np.array(rows, np.float32)


@pytest.mark.parametrize(
    ("arm", "finger", "arm_seen", "finger_seen"),
    [
        # The arm ten times as often as the finger, and the other way round.
        (range(0, 501, 10), range(-20, 501, 100), range(0, 501, 100), range(-20, 481, 100)),
        (range(-20, 501, 100), range(0, 501, 10), range(-20, 481, 100), range(0, 501, 100)),
        # At the same times, and in turn.
        (range(0, 501, 50), range(0, 501, 50), range(0, 501, 100), range(0, 501, 100)),
        (range(-15, 501, 30), range(0, 501, 30), (-15, 75, 195, 285, 375, 495), (0, 90, 180, 300, 390, 480)),
    ],
)
def test_of_each_publisher_the_latest_message_counts(robot, write_bag, contract_file, arm, finger, arm_seen, finger_seen) -> None:
    episode = BagEpisodes(write_bag(apart(robot, arm=arm, finger=finger)), contract=contract_file()).read(0)
    assert episode.timestamps is not None
    assert np.array_equal(episode.timestamps, (robot.START + np.arange(6) * 100 * robot.MS) / 1e9)
    assert np.array_equal(episode.proprio, proprio(arm_seen, finger_seen))


def test_one_entry_may_name_joints_of_both_in_any_order(robot, write_bag, contract_file) -> None:
    text = contract_file().read_text()
    lines = [line for line in text.splitlines() if f"topic: {STATES}" not in line]
    at = lines.index("proprio:") + 1
    mixed = f"  - {{topic: {STATES}, type: JointState, joints: [joint2, finger, joint1], units: [rad, m, rad]}}"
    contract = contract_file(text="\n".join([*lines[:at], mixed, *lines[at:]]) + "\n")
    path = write_bag(apart(robot, arm=range(0, 501, 20), finger=range(-10, 501, 50)))
    source = BagEpisodes(path, contract=contract)
    assert source.observation_spec.proprio_names == ("joint2.position", "finger.position", "joint1.position")
    assert np.array_equal(source.read(0).proprio, proprio(range(0, 501, 100), range(-10, 491, 100))[:, [1, 7, 0]])


def test_joints_of_others_do_not_matter(robot, write_bag, contract_file, assert_same_episode) -> None:
    sent = apart(robot, arm=range(0, 501, 50), finger=range(0, 501, 50))
    wheels = [states(robot, t, robot.joint_state(("left", "right"), np.array([9.0, 9.0]))) for t in range(-3, 501, 7)]
    nameless = [states(robot, t, robot.joint_state((), np.zeros(0))) for t in (13, 217)]
    paths = write_bag(sent), write_bag([*sent, *wheels, *nameless], "other/bag")
    assert_same_episode(*(BagEpisodes(path, contract=contract_file()).read(0) for path in paths))


def test_commands_may_be_shared_as_well(robot, write_bag, contract_file) -> None:
    """As by a leading arm whose gripper is read by another node."""
    text = contract_file().read_text()
    head, tail = text[: text.index("action:")], text[text.index("instruction:") :]
    action = "action:\n  - {topic: /leader, type: JointState, joints: [joint1, finger], units: [rad, m], low: -1, high: 1}\n"
    sent = robot.demonstration()
    for t in range(20, 500, 100):
        for after, name, number in ((0, "joint1", t / 1000), (10, "finger", t / 10_000)):
            own = states(robot, t + after, robot.joint_state((name,), np.array([number])))
            own.topic = "/leader"
            sent.append(own)
    source = BagEpisodes(write_bag(sent), contract=contract_file(text=head + action + tail))
    expected = [[t / 1000, t / 10_000] for t in range(20, 500, 100)]
    assert source.action_spec.to_units(source.read(0).actions) == pytest.approx(np.array(expected), abs=1e-6)


def test_rewards_are_placed_by_receipt_whoever_told_the_newest_sample(robot, write_bag, contract_file) -> None:
    """On a clock of stamps that is a second behind; the finger's messages come later than the arm's."""
    sent = apart(robot, arm=range(0, 501, 50), finger=range(10, 511, 50), finger_latency_ms=20)
    for t, reward in ((45, 1.0), (120, 2.0), (255, 4.0)):
        at = robot.START + t * robot.MS
        sent.append(robot.Sent("/reward", "std_msgs/msg/Float64", at, 0, {"data": reward}))
    for s in sent:
        s.stamp -= 1000 * robot.MS
    stamped = "\n".join(line for line in contract_file().read_text().splitlines() if "/gripper" not in line)
    contract = contract_file(text=stamped + "\nreward: {topic: /reward}\n")
    assert BagEpisodes(write_bag(sent), contract=contract).read(0).rewards.tolist() == [3, 0, 4, 0, 0]


# Age


def test_a_sample_is_as_old_as_its_oldest_part(robot, write_bag, contract_file) -> None:
    """A tolerance of 50 ms: the finger may be that old, and a millisecond more is a gap."""
    arm = range(0, 901, 20)
    good = write_bag(apart(robot, arm=arm, finger=[0, 100, 200, 250, 350, 450, 500, 600, 700, 800, 900], steps=9), "good/bag")
    (whole,) = BagEpisodes(good, contract=contract_file())
    seen = [0, 100, 200, 250, 350, 500, 600, 700, 800, 900]
    assert np.array_equal(whole.proprio, proprio(range(0, 901, 100), seen))
    late = write_bag(apart(robot, arm=arm, finger=[0, 100, 200, 249, 350, 450, 500, 600, 700, 800, 900], steps=9), "late/bag")
    with pytest.raises(DatasetError, match=r"/joint_states \(finger\): nothing for 0\.101 s at 0\.25 s; raise tol.*'split'"):
        BagEpisodes(late, contract=contract_file())
    before, after = BagEpisodes(late, contract=contract_file(), on_gap="split")
    assert np.array_equal(before.proprio, proprio(range(0, 201, 100), (0, 100, 200)))
    assert np.array_equal(after.proprio, proprio(range(400, 901, 100), (350, 500, 600, 700, 800, 900)))
    assert (before.success, after.success) == (False, True)


@pytest.mark.parametrize(("stopped", "name"), [("arm", ARM), ("finger", FINGER)])
def test_a_publisher_that_stops_in_mid_episode_is_a_gap_though_the_other_goes_on(
    robot, write_bag, contract_file, stopped, name
) -> None:
    path = write_bag(apart(robot, **{"arm": range(0, 901, 20), "finger": range(0, 901, 20), stopped: range(0, 301, 20)}, steps=9))
    with pytest.raises(DatasetError) as caught:  # up to where the last command holds
        BagEpisodes(path, contract=contract_file())
    assert f"{name}: nothing for 0.570 s at 0.30 s" in str(caught.value)
    (episode,) = BagEpisodes(path, contract=contract_file(), on_gap="split")
    assert len(episode) == 3
    assert (episode.success, bool(episode.truncated[-1])) == (False, True)


def test_every_entry_has_a_tolerance_of_its_own(robot, write_bag, contract_file) -> None:
    path = write_bag(apart(robot, arm=range(0, 501, 20), finger=[0, 260]))
    patient = contract_file(("joints: [finger], units: m", "joints: [finger], units: m, tolerance_s: 0.3"))
    (episode,) = BagEpisodes(path, contract=patient)
    assert np.array_equal(episode.proprio, proprio(range(0, 501, 100), (0, 0, 0, 260, 260, 260)))


def test_a_publisher_that_is_behind_the_other_is_no_clock_that_jumps(robot, write_bag, contract_file) -> None:
    """Its messages arrive 200 ms after their stamps, between newer ones of the arm."""
    sent = apart(robot, arm=range(0, 501, 20), finger=range(0, 501, 20), finger_latency_ms=200)
    episode = BagEpisodes(write_bag(sent), contract=contract_file()).read(0)
    assert np.array_equal(episode.proprio, proprio(range(0, 501, 100), range(0, 501, 100)))


# What contradicts itself


def test_a_joint_that_two_publishers_tell_is_refused(robot, write_bag, contract_file) -> None:
    """As where a display's joint_state_publisher runs beside the driver."""
    sent = robot.demonstration()
    sent += [states(robot, t, robot.joint_state(("finger",), np.zeros(1))) for t in range(0, 501, 50)]
    path = write_bag(sent)
    with pytest.raises(DatasetError) as caught:
        BagEpisodes(path, contract=contract_file())
    assert str(caught.value) == (
        f"{path}: /joint_states: joints finger expected one publisher, found two, of messages that name finger, joint1, "
        "joint2, joint3, joint4, joint5, joint6, joint7, and finger; stop one of them, or remap it to a topic of its own, and "
        "record again, or reset"
    )
    with pytest.raises(DatasetError, match=r"no episode can be read: .*joints finger expected one publisher"):
        BagEpisodes(path, contract=contract_file(), partial=True)


def test_two_publishers_that_tell_the_same_are_told_by_what_else_they_name(robot, write_bag, contract_file) -> None:
    sent = robot.demonstration()
    zeros = robot.joint_state((*robot.JOINTS, "finger", "wheel"), np.zeros(9))
    with pytest.raises(DatasetError, match=r"joints joint1, joint2, .*, finger expected one publisher, found two"):
        BagEpisodes(write_bag([*sent, states(robot, 150, zeros)]), contract=contract_file())


def test_a_publisher_may_come_to_name_others_besides(robot, write_bag, contract_file, assert_same_episode) -> None:
    """As a broadcaster does once another controller runs."""
    whole = robot.demonstration()
    more = robot.demonstration()
    for s in more:
        if s.topic == STATES and s.stamp > robot.START + 200 * robot.MS:
            s.fields["name"].append("wheel")
            s.fields["position"] = np.append(s.fields["position"], 9.0)
    paths = write_bag(whole), write_bag(more, "other/bag")
    assert_same_episode(*(BagEpisodes(path, contract=contract_file()).read(0) for path in paths))


@pytest.mark.parametrize(
    ("asked", "hint"),
    [("fingre", r"did you mean finger\?"), ("gripper", "there are: finger, joint1, .*joint7")],
)
def test_a_joint_that_nobody_tells_is_refused(robot, write_bag, contract_file, asked: str, hint: str) -> None:
    path = write_bag(apart(robot, arm=range(0, 501, 50), finger=range(0, 501, 50)))
    found = rf"/joint_states expected the joints {asked}, which none of its 22 messages names; {hint}.*: correct the contract, or"
    with pytest.raises(DatasetError, match=found) as caught:
        BagEpisodes(path, contract=contract_file(("joints: [finger]", f"joints: [{asked}]")))
    assert str(path) in str(caught.value)


def test_a_message_that_names_a_joint_twice_is_refused(robot, write_bag, contract_file) -> None:
    sent = apart(robot, arm=range(0, 501, 50), finger=range(0, 301, 50))
    sent += [states(robot, t, robot.joint_state(("finger", "finger"), np.zeros(2))) for t in range(350, 501, 50)]
    with pytest.raises(DatasetError, match=r"/joint_states at 17\d+\.400 s: message names a joint twice: finger, finger; repair"):
        BagEpisodes(write_bag(sent), contract=contract_file()).read(0)


def test_a_message_that_ends_within_its_names_is_damage(robot, write_bag, contract_file) -> None:
    damaged = states(robot, 40, robot.joint_state(("finger",), np.zeros(1)))
    whole = bytes(robot.STORE.serialize_cdr(robot.message(damaged), damaged.type))
    for end in (14, 22, 30):
        damaged.fields = whole[:end]
        path = write_bag([damaged, *apart(robot, arm=range(0, 501, 50), finger=range(0, 501, 50))], f"{end}/bag")
        with pytest.raises(DatasetError, match="/joint_states has a message too short for its joints; the bag is damaged"):
            BagEpisodes(path, contract=contract_file())


# Reports


def test_reports_tell_publishers_apart(robot, write_bag, contract_file) -> None:
    path = write_bag(apart(robot, arm=range(0, 501, 20), finger=range(5, 501, 50)))
    by_contract = BagEpisodes(path, contract=contract_file(("tolerance_s: 0.05", "tolerance_s: 0.1"))).reports[0]
    for report in (inspect_bag(path), by_contract):
        rows = [t for t in report.topics if topic_of(t.topic) == STATES]
        found = sorted((t.count, round(t.rate_hz), t.duplicates, t.out_of_order, t.lost) for t in rows)
        assert found == [(10, 20, 0, 0, 0), (26, 50, 0, 0, 0)]
        assert FINGER in report.text()


# The rule itself

NAMES = st.frozensets(st.sampled_from("abcdex"), min_size=1)


@given(st.lists(NAMES, max_size=8), st.permutations("abcde"))
def test_every_joint_is_told_by_one_part_whatever_comes(heard: list[frozenset[str]], joints: list[str]) -> None:
    shared, told = SharedJoints("/t", joints), dict[str, frozenset[str]]()
    for names in heard:
        rivals = {joint for joint in names & set(joints) if told.get(joint, names) != names}
        if rivals:
            with pytest.raises(DatasetError, match="expected one publisher, found two"):
                shared.take(names)
            continue
        label = shared.take(names)
        assert (label == "") == names.isdisjoint(joints)
        assert label == shared.label(names)
        assert not label or topic_of(label) == "/t"
        told |= dict.fromkeys(names & set(joints), names)
    assert shared.untold == tuple(joint for joint in joints if joint not in told)
    assert len(set(shared.parts)) == len(set(told.values())) + bool(shared.untold), "no two parts are called the same"
    assert shared.parts == ("/t",) or all(part != "/t" for part in shared.parts)
