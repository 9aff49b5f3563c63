"""Bags become the episodes they hold: every number by name, at the right tick."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets import HDF5Episodes, HDF5Writer, open_episodes
from qtransformer_datasets.rosbag import decoder
from qtransformer_datasets.rosbag.reader import BagEpisodes
from qtransformer_datasets.rosbag.ros_messages import encode_observation
from qtransformer_datasets.rosbag.topic_contract import TopicContract


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_of_another_robot_gives_every_number_at_its_tick(robot, write_bag, contract_file, storage: str) -> None:
    path = write_bag(robot.demonstration(), storage=storage)
    source = BagEpisodes(path, contract=contract_file())
    assert source.observation_spec.cameras == {"wrist": (84, 84, 3), "scene": (48, 64, 3)}
    assert source.observation_spec.proprio_names == (*(f"{j}.position" for j in robot.JOINTS), "finger.position")
    assert source.observation_spec.proprio_units == ("rad",) * 7 + ("m",)
    assert source.action_spec.names[-1] == "gripper"
    assert source.action_spec.discrete == (0,) * 7 + (2,)
    assert source.lengths == [5]
    episode = source.read(0)
    for i in range(6):
        assert np.array_equal(episode.images["wrist"][i], robot.wrist_pixels(i))
        assert np.array_equal(episode.images["scene"][i], robot.scene_pixels(i))
    expected = [[robot.joint_value(i, k) for k in range(7)] + [0.02] for i in range(6)]
    assert np.array_equal(episode.proprio, np.array(expected, np.float32))
    commands = [[robot.joint_value(i, k) + 0.005 for k in range(7)] + [float(i >= 2)] for i in range(5)]
    assert np.array_equal(episode.actions, source.action_spec.to_scaled(np.array(commands)))
    assert episode.timestamps is not None
    assert np.array_equal(episode.timestamps, (robot.START + np.arange(6) * 100 * robot.MS) / 1e9)
    assert episode.rewards.tolist() == [0, 0, 0, 0, 1]
    assert episode.terminated.tolist() == [False] * 4 + [True]
    assert not episode.truncated.any()
    assert (episode.success, episode.instruction) == (True, "pick up the red cube")


def test_a_round_trip_through_hdf5_keeps_every_number_and_pixel(bag, contract_file, tmp_path, assert_same_episode) -> None:
    source = BagEpisodes(bag, contract=contract_file())
    with HDF5Writer(tmp_path / "demo.hdf5", source.action_spec, source.observation_spec, source.attributes) as writer:
        for episode in source:
            writer.append(episode)
    read = HDF5Episodes(tmp_path / "demo.hdf5")
    assert (read.action_spec, read.observation_spec.to_dict()) == (source.action_spec, source.observation_spec.to_dict())
    assert read.attributes == source.attributes
    before, after = source.read(0), read.read(0)
    assert_same_episode(after, before)
    assert after.timestamps is not None
    assert before.timestamps is not None
    assert after.timestamps.tobytes() == before.timestamps.tobytes()


def test_the_format_is_recognised_by_what_lies_there(bag, contract_file) -> None:
    for path in (bag, bag.parent, next(bag.glob("*.mcap"))):
        assert len(open_episodes(path, contract=contract_file())) == 1
    with pytest.raises(DatasetError, match="a bag does not say what its topics mean; say so: contract=FILE"):
        open_episodes(bag)
    with pytest.raises(ConfigError, match="no option 'contrakt'; did you mean contract"):
        open_episodes(bag, contrakt="x")


def test_a_folder_of_bags_is_read_in_natural_order(robot, write_bag, contract_file) -> None:
    for number in (10, 9):
        write_bag(robot.demonstration(steps=number), f"all/bag_{number}", "sqlite3" if number == 9 else "mcap")
    path = write_bag(robot.demonstration(steps=2), "all/bag_2").parent
    source = BagEpisodes(path, contract=contract_file())
    assert source.lengths == [2, 9, 10]
    assert [episode.info["bag"] for episode in source] == ["bag_2", "bag_9", "bag_10"]
    with pytest.raises(DatasetError, match="expected an episode from 0 to 2, found 3"):
        source.read(3)


def test_the_clock_decides_which_image_was_there(robot, write_bag, contract_file) -> None:
    """The camera's messages arrive 30 ms after their stamps, everything else at once."""
    sent = robot.demonstration(latency=0)
    for s in sent:
        if s.topic.startswith("/wrist"):
            s.receive += 30 * robot.MS
    path = write_bag(sent)
    changes = (("tolerance_s: 0.05", "tolerance_s: 0.1"),)
    measured = BagEpisodes(path, contract=contract_file(*changes)).read(0)
    assert np.array_equal(measured.images["wrist"][3], robot.wrist_pixels(3))
    known = BagEpisodes(path, contract=contract_file(("clock: header", "clock: receive"), *changes)).read(0)
    assert known.timestamps is not None
    assert known.timestamps[0] == (robot.START + 30 * robot.MS) / 1e9, "the first tick waits for the first image"
    assert np.array_equal(known.images["wrist"][3], robot.wrist_pixels(3))
    assert known.proprio[3, 0] == np.float32(robot.joint_value(3, 0))
    late = [s for s in sent if not (s.topic.startswith("/wrist") and s.stamp == robot.START)]
    sent[0].receive = robot.START  # now the first image is in time, the others still 30 ms late
    known = BagEpisodes(write_bag([sent[0], *late], "b"), contract=contract_file(("clock: header", "clock: receive"), *changes))
    assert np.array_equal(known.read(0).images["wrist"][3], robot.wrist_pixels(2)), "at its tick image 3 had not arrived"


def test_messages_without_a_stamp_are_timed_by_receipt(robot, write_bag, contract_file) -> None:
    sent = robot.demonstration(latency=0)
    for s in sent:
        if s.topic == "/commands":
            s.stamp = 0
    assert BagEpisodes(write_bag(sent), contract=contract_file()).lengths == [5]


def drop(sent: list[Any], topic: str, *stamps: int) -> list[Any]:
    return [s for s in sent if not (s.topic == topic and s.stamp in stamps)]


def test_dropped_images_are_a_gap_and_never_filled(robot, write_bag, contract_file) -> None:
    sent = drop(robot.demonstration(steps=9), "/wrist/image_raw", *(robot.START + i * 100 * robot.MS for i in (4, 5)))
    path = write_bag(sent)
    with pytest.raises(DatasetError, match=r"/wrist/image_raw: nothing for 0\.300 s at 0\.30 s; .*on_gap='split'"):
        BagEpisodes(path, contract=contract_file())
    source = BagEpisodes(path, contract=contract_file(), on_gap="split")
    assert source.lengths == [3, 3]
    first, last = source
    assert np.array_equal(last.images["wrist"][0], robot.wrist_pixels(6))
    assert (first.success, first.truncated[-1], first.terminated[-1], first.rewards.sum()) == (False, True, False, 0)
    assert (last.success, last.terminated[-1], last.rewards.tolist()) == (True, True, [0, 0, 1])
    assert [gap[0] for gap in source.reports[0].gaps] == ["/wrist/image_raw"]
    assert [first.info["outcome"], last.info["outcome"]] == ["split", "success"]
    tolerant = contract_file(("wrist: {topic: /wrist/image_raw}", "wrist: {topic: /wrist/image_raw, tolerance_s: 0.25}"))
    (whole,) = BagEpisodes(path, contract=tolerant)
    assert np.array_equal(whole.images["wrist"][5], robot.wrist_pixels(3)), "within the tolerance the latest image holds"


def test_the_outcome_does_not_move_to_where_a_camera_died(robot, write_bag, contract_file) -> None:
    sent = drop(robot.demonstration(steps=9), "/wrist/image_raw", *(robot.START + i * 100 * robot.MS for i in range(4, 10)))
    (episode,) = BagEpisodes(write_bag(sent), contract=contract_file(), on_gap="split")
    assert len(episode) == 3
    assert (episode.success, bool(episode.truncated[-1])) == (False, True)


def test_a_clock_that_jumps_back_parts_the_episode(robot, write_bag, contract_file) -> None:
    """As when a simulation is reset while the recording goes on: the same stamps come twice."""
    sent = robot.demonstration(steps=4)
    again = robot.demonstration(steps=3, latency=2000 * robot.MS)
    for s in again:
        s.receive = max(s.receive, s.stamp + 2000 * robot.MS)
    path = write_bag([s for s in sent if s.topic != "/outcome"] + again)
    text = contract_file().read_text()
    stamped = contract_file(text="\n".join(line for line in text.splitlines() if "/gripper" not in line))
    with pytest.raises(DatasetError, match=r"/wrist/image_raw: its clock jumps back by 0\.400 s at 0\.40 s"):
        BagEpisodes(path, contract=stamped)
    source = BagEpisodes(path, contract=stamped, on_gap="split")
    assert source.lengths == [4, 3]
    assert [episode.success for episode in source] == [False, True]
    assert np.array_equal(source.read(1).images["wrist"][3], robot.wrist_pixels(3))


def test_duplicates_and_small_disorder_are_counted_and_harmless(robot, write_bag, contract_file) -> None:
    sent = robot.demonstration()
    states = [s for s in sent if s.topic == "/joint_states"]
    other = robot.joint_state((*robot.JOINTS, "finger"), np.full(8, 0.5))
    sent.append(robot.Sent("/joint_states", states[2].type, states[2].receive + 1, states[2].stamp, other))
    late = robot.Sent("/joint_states", states[3].type, states[4].receive + 1, states[3].stamp + 60 * robot.MS, other)
    source = BagEpisodes(write_bag([*sent, late]), contract=contract_file())
    report = {t.topic: t for t in source.reports[0].topics}["/joint_states"]
    assert (report.count, report.duplicates, report.out_of_order) == (8, 1, 1)
    episode = source.read(0)
    assert episode.proprio[2].tolist() == [0.5] * 8, "of equal stamps the one recorded last counts"
    assert episode.proprio[3, 0] == np.float32(robot.joint_value(3, 0))


@pytest.mark.parametrize(
    ("changes", "drop_topic", "message"),
    [
        ((), "/gripper", "has no topic /gripper; there are"),
        ((("/wrist/image_raw", "/wrist/image_rw"),), "", r"has no topic /wrist/image_rw; did you mean /wrist/image_raw\?"),
        ((("type: CompressedImage", "type: Image"),), "", "expected sensor_msgs/msg/Image, found sensor_msgs/msg/CompressedImage"),
        ((("outcome: {topic: /outcome}", "outcome: {topic: /joint_states}"),), "", "/joint_states expected words"),
        (
            (("joints: [finger]", "joints: [thumb]"),),
            "",
            r"/joint_states at 17\d+\.000 s: joints thumb are not in",
        ),
        (
            (("low: -1\n", "low: 0.02\n"),),
            "",
            r"actions beyond limits: 'joint1\.position' in 40\.0 % .*from 0\.005",
        ),
        ((("outcome: {topic: /outcome}", ""),), "", "does not say how it ended .*outcome='success'"),
        ((("outcome: {topic: /outcome}", "outcome: {topic: /outcome, success: [ok]}"),), "", r"does not say .*\['success'\]"),
        ((("{text: pick up the red cube}", "{custom_data: task}"),), "", "custom_data 'task' gives no instruction"),
    ],
)
def test_what_does_not_fit_the_contract_is_refused(robot, write_bag, contract_file, changes, drop_topic, message) -> None:
    path = write_bag([s for s in robot.demonstration() if s.topic != drop_topic])
    with pytest.raises(DatasetError, match=message) as caught:
        BagEpisodes(path, contract=contract_file(*changes)).read(0)
    assert str(path) in str(caught.value)


def test_topics_that_share_no_time_are_told_apart(robot, write_bag, contract_file) -> None:
    """Simulated stamps from 0 on headers, wall time on messages without one."""
    sent = robot.demonstration()
    for s in sent:
        s.stamp -= robot.START - 10**9
    path = write_bag(sent)
    with pytest.raises(DatasetError, match=r"at no tick every topic has a sample .*/gripper 1699999999\.\d+ to"):
        BagEpisodes(path, contract=contract_file())
    assert BagEpisodes(path, contract=contract_file(("clock: header", "clock: receive"))).lengths == [5]


def test_actions_beyond_their_limits_can_be_clipped(bag, contract_file) -> None:
    contract = contract_file(("low: -1\n    high: 1", "low: 0.02\n    high: 1"))
    episode = BagEpisodes(bag, contract=contract, clip_actions=True).read(0)
    assert episode.actions[:2, 0].tolist() == [-1, -1]
    assert episode.actions[2, 0] > -1
    [(name, share)] = episode.info["clipped_actions"].items()
    assert (name, share) == (BagEpisodes(bag, contract=contract, clip_actions=True).action_spec.names[0], 0.4)
    assert "clipped_actions" not in BagEpisodes(bag, contract=contract_file(), clip_actions=True).read(0).info


def test_limits_may_come_from_the_data(bag, contract_file) -> None:
    contract = contract_file(("    low: -1\n    high: 1\n", ""))
    with pytest.raises(ConfigError, match="limits_from_data=True"):
        BagEpisodes(bag, contract=contract)
    source = BagEpisodes(bag, contract=contract, limits_from_data=True)
    assert source.action_spec.low[:2] == (0.005, 0.1 + 0.005)
    assert source.action_spec.high[0] == pytest.approx(0.045)
    assert (source.action_spec.low[7], source.action_spec.high[7]) == (0.0, 1.0)
    assert source.read(0).actions[:, 0].tolist() == pytest.approx([-1, -0.5, 0, 0.5, 1])


def test_an_action_that_stretches_limits_from_the_data_is_told(robot, write_bag, contract_file) -> None:
    sent = robot.demonstration(steps=40)
    at = [number for number, message in enumerate(sent) if message.topic == "/gripper"][9]
    sent[at] = replace(sent[at], fields=robot.numbers([1e6]))
    path, contract = write_bag(sent), contract_file((", low: 0, high: 1, discrete: 2}", "}"))
    with pytest.warns(UserWarning, match=r"step 9: action 'gripper' expected .*, from 0 to 1, found 1e\+06; .*in the contract"):
        BagEpisodes(path, contract=contract, limits_from_data=True)


def test_a_dimension_that_never_moves_has_no_limits(robot, write_bag, contract_file) -> None:
    sent = [s for s in robot.demonstration() if s.topic != "/gripper"]
    for t in range(0, 600, 100):
        sent.append(robot.Sent("/gripper", "std_msgs/msg/Float64MultiArray", robot.START + t * robot.MS, 0, robot.numbers([1.0])))
    contract = contract_file((", low: 0, high: 1, discrete: 2}", "}"))
    with pytest.raises(DatasetError, match="action 'gripper' is 1 throughout; give its limits"):
        BagEpisodes(write_bag(sent), contract=contract, limits_from_data=True)


def test_actions_may_be_where_the_robot_went_next(bag, contract_file) -> None:
    text = contract_file().read_text()
    head = text[: text.index("action:")]
    tail = text[text.index("instruction:") :]
    moves = (
        "action:\n  - {next_state: difference, of: [joint2.position], low: -0.02, high: 0.02}\n"
        "  - {next_state: absolute, of: [finger.position], low: 0, high: 0.04}\n"
    )
    source = BagEpisodes(bag, contract=contract_file(text=head + moves + tail))
    assert source.action_spec.names == ("d_joint2.position", "finger.position")
    assert source.action_spec.to_units(source.read(0).actions) == pytest.approx(np.tile([0.01, 0.02], (5, 1)), abs=1e-6)
    assert source.action_spec.units == ("rad", "m")


MARKERS = "\nepisodes:\n  start: {topic: /event, words: [start]}\n  stop: {topic: /event, words: [stop, success, failure]}\n"


def events(robot: Any, *said: tuple[float, str], topic: str = "/event") -> list[Any]:
    at = [robot.START + round(t * 1000) * robot.MS for t, _ in said]
    return [robot.Sent(topic, "std_msgs/msg/String", t, t, {"data": word}) for t, (_, word) in zip(at, said, strict=True)]


def test_markers_part_a_bag_into_episodes_with_their_outcomes(robot, write_bag, contract_file) -> None:
    said = [
        (0.05, "start"),
        (0.55, "success"),
        (0.75, "start"),
        (1.0, "discard"),
        (1.05, "start"),
        (1.65, "timeout"),
        (1.75, "start"),
    ]
    sent = robot.demonstration(steps=25) + events(robot, *said)
    text = contract_file().read_text().replace("{topic: /outcome}", "{topic: /event}")
    text += MARKERS.replace("failure]", "timeout]") + "  discard: {topic: /event, words: [discard]}\n"
    with pytest.raises(DatasetError, match="does not say how it ended"):
        BagEpisodes(write_bag(sent), contract=contract_file(text=text))
    source = BagEpisodes(write_bag(sent, "b"), contract=contract_file(text=text), outcome="failure")
    assert [e.info["outcome"] for e in source] == ["success", "timeout", "failure"]
    assert [(len(e), e.success, bool(e.terminated[-1]), bool(e.truncated[-1])) for e in source] == [
        (4, True, True, False),  # images 1 to 5
        (5, False, False, True),  # images 11 to 16
        (7, False, True, False),  # images 18 to 25
    ]
    for episode, begin in zip(source, (1, 11, 18), strict=True):
        assert np.array_equal(episode.images["wrist"][0], robot.wrist_pixels(begin))
        assert episode.proprio[-1, 0] == np.float32(robot.joint_value(begin + len(episode), 0))


def test_a_command_from_before_the_start_holds_as_long_as_its_tolerance_says(robot, write_bag, contract_file) -> None:
    """The gripper is told once, before the first episode; the tolerance says that this holds."""
    sent = [s for s in robot.demonstration(steps=20) if s.topic not in ("/gripper", "/outcome")]
    sent += [robot.Sent("/gripper", "std_msgs/msg/Float64MultiArray", robot.START, 0, robot.numbers([1.0]))]
    sent += events(robot, (0.05, "start"), (0.55, "success"), (0.75, "start"), (1.25, "failure"))
    text = contract_file().read_text().replace("{topic: /outcome}", "{topic: /event}") + MARKERS
    with pytest.raises(DatasetError, match="at no tick every topic has a sample"):
        BagEpisodes(write_bag(sent, "a"), contract=contract_file(text=text))
    source = BagEpisodes(
        write_bag(sent, "b"), contract=contract_file(text=text.replace("discrete: 2", "discrete: 2, tolerance_s: 60"))
    )
    assert [episode.actions[:, 7].tolist() for episode in source] == [[1.0] * 4, [1.0] * 4]


def test_big_endian_messages_are_read_alike(robot, bag, write_bag, contract_file, assert_same_episode) -> None:
    other = write_bag(robot.demonstration(), "other/bag", little_endian=False)
    assert_same_episode(*(BagEpisodes(path, contract=contract_file()).read(0) for path in (other, bag)))


def test_service_calls_can_mark_episodes(robot, write_bag, contract_file) -> None:
    """Of a recorded `std_srvs/srv/Trigger_Event` only the beginning is read: encapsulation, then the kind of event."""
    calls = []
    for t, name, kind in [(50, "start", 1), (51, "start", 2), (450, "stop", 1), (451, "stop", 2)]:
        at = robot.START + t * robot.MS
        data = bytes([0, 1, 0, 0, kind]) + bytes(47)
        calls.append(robot.Sent(f"/record/{name}/_service_event", "std_srvs/srv/Trigger_Event", at, at, data))
    rule = "\nepisodes:\n" + "".join(
        f"  {name}: {{topic: /record/{name}/_service_event, words: [request_received]}}\n" for name in ("start", "stop")
    )
    path = write_bag(robot.demonstration(steps=9) + calls)
    (episode,) = BagEpisodes(path, contract=contract_file(text=contract_file().read_text() + rule))
    assert len(episode) == 3
    assert np.array_equal(episode.images["wrist"][0], robot.wrist_pixels(1))


def test_words_may_come_with_the_bag(robot, write_bag, contract_file) -> None:
    contract = contract_file(
        ("{topic: /outcome}", "{custom_data: outcome}"), ("{text: pick up the red cube}", "{custom_data: task}")
    )
    path = write_bag(robot.demonstration(), custom_data={"outcome": "timeout", "task": "stack ${oc.env:HOME}"})
    (episode,) = BagEpisodes(path, contract=contract)
    assert (episode.success, bool(episode.truncated[-1]), episode.instruction) == (False, True, "stack ${oc.env:HOME}")


def test_the_instruction_may_be_given_on_a_topic_before_the_start(robot, write_bag, contract_file) -> None:
    early = robot.Sent("/task", "std_msgs/msg/String", robot.START - 10**9, 0, {"data": "open the drawer"})
    contract = contract_file(("{text: pick up the red cube}", "{topic: /task}"))
    (episode,) = BagEpisodes(write_bag([early, *robot.demonstration()]), contract=contract)
    assert episode.instruction == "open the drawer"


def test_rewards_on_a_topic_are_summed_over_each_step(robot, write_bag, contract_file) -> None:
    given = [(10, 0.25), (60, 0.5), (100, 1.0), (101, 2.0), (560, 4.0)]
    sent = robot.demonstration(latency=0) + [
        robot.Sent("/reward", "std_msgs/msg/Float32", robot.START + t * robot.MS, 0, {"data": r}) for t, r in given
    ]
    (episode,) = BagEpisodes(
        write_bag(sent), contract=contract_file(text=contract_file().read_text() + "reward: {topic: /reward}\n")
    )
    assert episode.rewards.tolist() == [1.75, 2.0, 0.0, 0.0, 4.0]


def test_rewards_and_instructions_go_to_the_episode_they_belong_to(robot, write_bag, contract_file) -> None:
    sent = robot.demonstration(steps=20) + events(robot, (0.05, "start"), (0.55, "success"), (0.75, "start"), (1.25, "failure"))
    sent += events(robot, (0.01, "push"), (0.7, "pull"), topic="/task")
    for t, reward in [(60, 1.0), (600, 2.0), (800, 4.0), (1900, 8.0)]:
        sent.append(robot.Sent("/reward", "std_msgs/msg/Float64", robot.START + t * robot.MS, 0, {"data": reward}))
    text = contract_file(("{topic: /outcome}", "{topic: /event}"), ("{text: pick up the red cube}", "{topic: /task}")).read_text()
    source = BagEpisodes(write_bag(sent), contract=contract_file(text=text + MARKERS + "reward: {topic: /reward}\n"))
    assert [(e.instruction, e.rewards.tolist()) for e in source] == [("push", [0, 0, 0, 2]), ("pull", [0, 0, 0, 8])]


def test_rewards_are_placed_by_receipt_whatever_the_clock_of_the_stamps(robot, write_bag, contract_file) -> None:
    """Ticks run on a simulated clock that begins at 1 s; rewards have no stamp."""
    text = contract_file(("{topic: /outcome}", "{topic: /event}")).read_text() + MARKERS + "reward: {topic: /reward}\n"
    sent = robot.demonstration(steps=20) + events(robot, (0.05, "start"), (0.55, "success"), (0.75, "start"), (1.25, "failure"))
    for t, reward in [(60, 1.0), (260, 2.0), (600, 4.0), (800, 8.0), (950, 16.0), (1900, 32.0)]:
        sent.append(robot.Sent("/reward", "std_msgs/msg/Float64", robot.START + t * robot.MS, 0, {"data": reward}))
    for s in sent:
        s.stamp -= robot.START - 1000 * robot.MS
    stamped = "\n".join(line for line in text.splitlines() if "/gripper" not in line)
    first, second = BagEpisodes(write_bag(sent), contract=contract_file(text=stamped))
    assert first.rewards.tolist() == [0, 2, 0, 4]
    assert second.rewards.tolist() == [0, 16, 0, 32]


def test_a_bag_that_changes_between_opening_and_reading_is_noticed(robot, write_bag, contract_file) -> None:
    source = BagEpisodes(write_bag(robot.demonstration()), contract=contract_file())
    shutil.rmtree(source.path)
    later = robot.demonstration(latency=0, start=robot.START + 3 * robot.MS)
    write_bag(later)
    with pytest.raises(DatasetError, match=r"changed while it was read|fewer messages than when it was opened"):
        source.read(0)


def test_images_are_resized_as_a_live_node_would(robot, bag, contract_file) -> None:
    contract = contract_file(
        ("{topic: /wrist/image_raw}", "{topic: /wrist/image_raw, size: [20, 30]}"),
        ("type: CompressedImage}", "type: CompressedImage, size: [12, 16]}"),
    )
    source = BagEpisodes(bag, contract=contract)
    sent = {s.topic: robot.message(s) for s in robot.demonstration() if s.stamp == robot.START + 300 * robot.MS}
    live, logged = encode_observation(source.contract, sent), source.read(0)
    for camera, pixels in live["images"].items():
        assert np.array_equal(pixels, logged.images[camera][3])
    assert np.array_equal(live["proprio"], logged.proprio[3])


def test_a_camera_that_changes_its_size_needs_one_in_the_contract(robot, write_bag, contract_file) -> None:
    sent = robot.demonstration()
    changed = next(s for s in sent if s.topic == "/wrist/image_raw" and s.stamp == robot.START + 200 * robot.MS)
    changed.fields = robot.image(robot.wrist_pixels(0)[:40])
    path = write_bag(sent)
    with pytest.raises(DatasetError, match=r"camera 'wrist' expected \(84, 84, 3\), found \(40, 84, 3\); give its `size`"):
        BagEpisodes(path, contract=contract_file()).read(0)
    sized = contract_file(("{topic: /wrist/image_raw}", "{topic: /wrist/image_raw, size: [20, 20]}"))
    assert BagEpisodes(path, contract=sized).read(0).images["wrist"].shape == (6, 20, 20, 3)


def test_only_messages_that_a_tick_uses_are_deserialised(robot, write_bag, contract_file, monkeypatch) -> None:
    sent = robot.demonstration()
    state = next(s for s in sent if s.topic == "/joint_states")
    extra = [
        robot.Sent(state.topic, state.type, state.receive + i, state.stamp + i * 5 * robot.MS, state.fields) for i in range(1, 19)
    ]
    source, count = BagEpisodes(write_bag(sent + extra), contract=contract_file()), [0]

    def counting(bag: Any, message: Any, original: Callable[..., Any] = decoder.deserialize) -> Any:
        count[0] += message.topic == "/joint_states"
        return original(bag, message)

    monkeypatch.setattr(decoder, "deserialize", counting)
    source.read(0)
    assert count[0] == 6


def test_the_report_says_what_each_topic_did(robot, bag, contract_file) -> None:
    (report,) = BagEpisodes(bag, contract=contract_file()).reports
    by_topic = {t.topic: t for t in report.topics}
    wrist = by_topic["/wrist/image_raw"]
    assert (wrist.count, wrist.rate_hz, wrist.first_s, wrist.last_s) == (6, pytest.approx(10), 0.0, pytest.approx(0.5))
    assert wrist.jitter_s == pytest.approx(0)
    assert by_topic["/commands"].first_s == pytest.approx(0.02)
    assert "/wrist/image_raw" in report.text()
    assert "10.0" in report.text()
    assert (report.episodes, report.gaps, report.problems) == (1, (), ())


def test_a_bag_of_the_example_contract_s_robot_is_read(robot, write_bag) -> None:
    """Messages of every topic of the contract, made from the contract itself."""
    contract = TopicContract.load(Path(__file__).parents[3] / "datasets" / "contracts" / "ur5e_two_cameras.yaml")
    arm, finger = contract.proprio[0], contract.proprio[1]
    sent = [robot.Sent("/task", "std_msgs/msg/String", robot.START - robot.MS, 0, {"data": "sort the screws"})]
    for i in range(8):
        t, pose = robot.START + i * 100 * robot.MS, np.arange(6.0) * 0.1 + 0.01 * i
        goal = robot.trajectory(arm.joints[::-1], [(50 * robot.MS, pose[::-1] - 1), (100 * robot.MS, pose[::-1] + 0.01)])
        fields = [
            (contract.cameras["wrist"].topic, "sensor_msgs/msg/Image", robot.image(robot.wrist_pixels(i))),
            (contract.cameras["scene"].topic, "sensor_msgs/msg/CompressedImage", robot.compressed(robot.scene_pixels(i), ".jpeg")),
            (arm.topic, "sensor_msgs/msg/JointState", robot.joint_state(arm.joints[::-1], pose[::-1])),
            (finger.topic, "sensor_msgs/msg/JointState", robot.joint_state(finger.joints, np.array([0.4]))),
            (contract.commanded[0].topic, "trajectory_msgs/msg/JointTrajectory", goal),
        ]
        sent += [robot.Sent(topic, kind, t + robot.MS, t, own) for topic, kind, own in fields]
    sent.append(robot.Sent("/gripper/commands", "std_msgs/msg/Float64MultiArray", robot.START - robot.MS, 0, robot.numbers([1.0])))
    sent += events(robot, (-0.005, "start"), (0.71, "failure"), topic="/episode/event")
    (episode,) = BagEpisodes(write_bag(sent), contract=contract)
    assert len(episode) == 7
    assert (episode.images["wrist"].shape, episode.images["scene"].shape) == ((8, 84, 84, 3), (8, 48, 64, 3))
    assert (episode.instruction, episode.success, bool(episode.terminated[-1])) == ("sort the screws", False, True)
    assert episode.proprio[3].tolist() == pytest.approx([0.03, 0.13, 0.23, 0.33, 0.43, 0.53, 0.4])
    assert contract.action_spec().to_units(episode.actions[3]) == pytest.approx([0.04, 0.14, 0.24, 0.34, 0.44, 0.54, 1.0], abs=1e-6)
