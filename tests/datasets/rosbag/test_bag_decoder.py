"""The payload of episodes: images, numbers and actions, from no more messages than ticks use."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag import decoder
from qtransformer_datasets.rosbag.reader import BagEpisodes
from qtransformer_datasets.rosbag.ros_messages import encode_observation


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
