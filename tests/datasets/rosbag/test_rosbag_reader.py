"""Bags become the episodes they hold: every number by name, at the right tick; and what does not fit is refused by name."""

from pathlib import Path

import numpy as np
import pytest

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets import HDF5Episodes, HDF5Writer, open_episodes
from qtransformer_datasets.rosbag.reader import BagEpisodes
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
    sent += robot.events((-0.005, "start"), (0.71, "failure"), topic="/episode/event")
    (episode,) = BagEpisodes(write_bag(sent), contract=contract)
    assert len(episode) == 7
    assert (episode.images["wrist"].shape, episode.images["scene"].shape) == ((8, 84, 84, 3), (8, 48, 64, 3))
    assert (episode.instruction, episode.success, bool(episode.terminated[-1])) == ("sort the screws", False, True)
    assert episode.proprio[3].tolist() == pytest.approx([0.03, 0.13, 0.23, 0.33, 0.43, 0.53, 0.4])
    assert contract.action_spec().to_units(episode.actions[3]) == pytest.approx([0.04, 0.14, 0.24, 0.34, 0.44, 0.54, 1.0], abs=1e-6)


def test_big_endian_messages_are_read_alike(robot, bag, write_bag, contract_file, assert_same_episode) -> None:
    other = write_bag(robot.demonstration(), "other/bag", little_endian=False)
    assert_same_episode(*(BagEpisodes(path, contract=contract_file()).read(0) for path in (other, bag)))


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
            "/joint_states expected the joints thumb, which none of its 6 messages names; there are: finger, joint1",
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
