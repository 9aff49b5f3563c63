"""Which stretches of a bag are episodes: by markers, gaps and clocks that jump; and what was there at each tick."""

import numpy as np
import pytest

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag.reader import BagEpisodes


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


def test_dropped_images_are_a_gap_and_never_filled(robot, write_bag, contract_file) -> None:
    sent = robot.drop(robot.demonstration(steps=9), "/wrist/image_raw", *(robot.START + i * 100 * robot.MS for i in (4, 5)))
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
    sent = robot.drop(robot.demonstration(steps=9), "/wrist/image_raw", *(robot.START + i * 100 * robot.MS for i in range(4, 10)))
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


def test_topics_that_share_no_time_are_told_apart(robot, write_bag, contract_file) -> None:
    """Simulated stamps from 0 on headers, wall time on messages without one."""
    sent = robot.demonstration()
    for s in sent:
        s.stamp -= robot.START - 10**9
    path = write_bag(sent)
    with pytest.raises(DatasetError, match=r"at no tick every topic has a sample .*/gripper 1699999999\.\d+ to"):
        BagEpisodes(path, contract=contract_file())
    assert BagEpisodes(path, contract=contract_file(("clock: header", "clock: receive"))).lengths == [5]


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
    sent = robot.demonstration(steps=25) + robot.events(*said)
    text = contract_file().read_text().replace("{topic: /outcome}", "{topic: /event}")
    text += robot.MARKERS.replace("failure]", "timeout]") + "  discard: {topic: /event, words: [discard]}\n"
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


def test_a_command_from_before_the_start_holds_as_long_as_its_tolerance_says(robot, write_bag, contract_file) -> None:
    """The gripper is told once, before the first episode; the tolerance says that this holds."""
    sent = [s for s in robot.demonstration(steps=20) if s.topic not in ("/gripper", "/outcome")]
    sent += [robot.Sent("/gripper", "std_msgs/msg/Float64MultiArray", robot.START, 0, robot.numbers([1.0]))]
    sent += robot.events((0.05, "start"), (0.55, "success"), (0.75, "start"), (1.25, "failure"))
    text = contract_file().read_text().replace("{topic: /outcome}", "{topic: /event}") + robot.MARKERS
    with pytest.raises(DatasetError, match="at no tick every topic has a sample"):
        BagEpisodes(write_bag(sent, "a"), contract=contract_file(text=text))
    source = BagEpisodes(
        write_bag(sent, "b"), contract=contract_file(text=text.replace("discrete: 2", "discrete: 2, tolerance_s: 60"))
    )
    assert [episode.actions[:, 7].tolist() for episode in source] == [[1.0] * 4, [1.0] * 4]
