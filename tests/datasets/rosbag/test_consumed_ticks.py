"""Ticks that a policy reports: what is read from a bag is what the policy saw, however the messages came."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets.rosbag.consumed_ticks import Samples, TickReport, UnseenSample, follow
from qtransformer_datasets.rosbag.reader import BagEpisodes
from qtransformer_datasets.rosbag.ros_messages import DIGEST_KEY, encode_observation, observation_digest
from qtransformer_datasets.rosbag.strict_yaml import parse
from qtransformer_datasets.rosbag.tick_sync import FOREVER, Window
from qtransformer_datasets.rosbag.topic_contract import TopicContract

MS = 1_000_000
CONTRACT = """
control_hz: 10
tolerance_s: 0.05
cameras:
  wrist: {topic: camera}
proprio:
  - {topic: joint_states, type: JointState, joints: [a, b], units: rad}
action:
  - {topic: twist, type: TwistStamped, values: [vx, wz], names: [dx, dyaw], per_step: true, low: [-0.1, -0.2], high: [0.1, 0.2]}
  - {topic: gripper, type: Float64MultiArray, values: [gripper], units: "1", low: 0, high: 1, discrete: 2}
episodes:
  start: {topic: event, words: [start]}
  stop: {topic: event, words: [success, failure, timeout]}
outcome: {topic: event}
ticks: {topic: policy/consumed}
"""


@pytest.fixture
def contract_path(tmp_path: Path) -> Path:
    path = tmp_path / "consumed.yaml"
    path.write_text(CONTRACT)
    return path


def parse_contract() -> TopicContract:
    return parse(TopicContract, yaml.safe_load(CONTRACT), "test").resolved()


def pixels(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (4, 6, 3), np.uint8)


class Scene:
    """A robot whose messages reach policy and recorder each in their own time [ms since START]."""

    def __init__(self, robot: Any) -> None:
        self.robot, self.sent, self.known = robot, list[Any](), dict[str, tuple[float, Any]]()
        self.seen, self.actions = list[dict[str, Any]](), list[list[float]]()

    def ns(self, ms: float) -> int:
        return self.robot.START + round(ms * MS)

    def put(self, topic: str, kind: str, at: float, stamp: float, fields: dict[str, Any]) -> Any:
        self.sent.append(self.robot.Sent(f"/{topic}", kind, self.ns(at), self.ns(stamp), fields))
        return self.sent[-1]

    def image(self, at: float, stamp: float, i: int) -> Any:
        return self.put("camera", "sensor_msgs/msg/Image", at, stamp, self.robot.image(pixels(i)))

    def joints(self, at: float, stamp: float, i: int) -> Any:
        state = self.robot.joint_state(("b", "a"), np.array([-0.01 * i, 0.01 * i]))
        return self.put("joint_states", "sensor_msgs/msg/JointState", at, stamp, state)

    def event(self, at: float, word: str) -> None:
        self.put("event", "std_msgs/msg/String", at, at, {"data": word})

    def decide(self, at: float, image: Any, state: Any, *, decided: float | None = None) -> None:
        types, stamp = self.robot.TYPES, self.ns(at if decided is None else decided)
        latest = {s.topic: self.robot.message(s) for s in (image, state)}
        said = {s.topic: str(s.stamp) for s in (image, state)}
        said[DIGEST_KEY] = observation_digest(encode_observation(parse_contract(), latest))
        values = [types["diagnostic_msgs/msg/KeyValue"](key=key, value=value) for key, value in said.items()]
        status = types["diagnostic_msgs/msg/DiagnosticStatus"](level=0, name="", message="", hardware_id="", values=values)
        kind = "diagnostic_msgs/msg/DiagnosticArray"
        self.sent.append(self.robot.Sent("/policy/consumed", kind, self.ns(at), stamp, {"status": [status]}))
        self.seen.append(latest)

    def act(self, at: float, vx: float, wz: float, gripper: float) -> None:
        types = self.robot.TYPES
        vector = types["geometry_msgs/msg/Vector3"]
        twist = types["geometry_msgs/msg/Twist"](linear=vector(x=vx, y=9.0, z=9.0), angular=vector(x=9.0, y=9.0, z=wz))
        self.put("twist", "geometry_msgs/msg/TwistStamped", at, at, {"twist": twist})
        self.put("gripper", "std_msgs/msg/Float64MultiArray", at + 0.1, 0, self.robot.numbers([gripper]))
        self.actions.append([vx / 10, wz / 10, gripper])


def lockstep(robot: Any, steps: int = 4, outcome: str = "success") -> Scene:
    """Every 7 ms of wall time an instant of 100 ms of simulated time; the last is followed by the outcome."""
    scene = Scene(robot)
    scene.event(0, "start")
    for k in range(steps + 1):
        at, stamp = 1 + 7 * k, -1e6 + 100 * k
        image, state = scene.image(at, stamp, k), scene.joints(at + 0.2, stamp, k)
        if k < steps:
            scene.decide(at + 2, image, state, decided=stamp - 100 * (k % 2))  # a simulated clock heard late
            scene.act(at + 3, 0.1 * k, -0.2 * k, float(k == 2))
    scene.event(1 + 7 * steps + 0.5, outcome)
    return scene


def assert_as_seen(scene: Scene, episode: Any, contract: TopicContract, steps: int) -> None:
    resolved = contract.resolved()
    assert len(episode) == steps
    for k, latest in enumerate(scene.seen[:steps]):
        live = encode_observation(resolved, latest)
        assert live["images"]["wrist"].tobytes() == episode.images["wrist"][k].tobytes(), k
        assert live["proprio"].tobytes() == episode.proprio[k].tobytes(), k
    expected = contract.action_spec().to_scaled(np.array(scene.actions[:steps]))
    assert np.array_equal(episode.actions, expected)


def test_lockstep_gives_what_was_seen_and_the_terminal_observation(robot, write_bag, contract_path) -> None:
    scene = lockstep(robot)
    (episode,) = BagEpisodes(write_bag(scene.sent), contract=contract_path)
    assert_as_seen(scene, episode, TopicContract.load(contract_path), 4)
    assert np.array_equal(episode.images["wrist"][4], pixels(4))
    assert episode.proprio[4].tolist() == np.float32([0.04, -0.04]).tolist()
    assert (episode.success, episode.rewards.tolist(), episode.terminated.tolist()) == (True, [0, 0, 0, 1], [False] * 3 + [True])
    assert np.diff(episode.timestamps) == pytest.approx(0.1, abs=1e-5)


def test_the_action_of_a_stream_is_where_its_points_lead() -> None:
    """Five points a control period of 100 ms, the last one slow. The hold that follows the last decision is none of them."""
    stamps = np.arange(4) * 100 * MS
    camera = Samples("/camera", stamps, stamps, 50 * MS)
    decisions = [TickReport(int(t) + 5 * MS, int(t), {"/camera": int(t)}) for t in stamps[:3]]
    points = np.concatenate([t + 6 * MS + np.array([0, 20, 40, 60, 90]) * MS for t in stamps[:3]])
    points = np.append(points, 350 * MS)
    for is_streamed, expected in ((True, [4, 9, 14]), (False, [0, 5, 10])):
        commands = Samples("/positions", points, points, 50 * MS, is_streamed)
        window = Window(0, 400 * MS, 400 * MS)
        (ticks,), _ = follow(decisions, [camera], [commands], window, topic="/consumed", hz=10.0, tolerance=20 * MS)
        assert ticks.samples[1].tolist() == expected


def test_an_image_that_is_not_the_one_decided_on_is_noticed_though_its_stamp_agrees(robot, write_bag, contract_path) -> None:
    scene = lockstep(robot)
    second = sorted((s for s in scene.sent if s.topic == "/camera"), key=lambda s: s.stamp)[1]
    second.fields.update(robot.image(pixels(99)))
    with pytest.raises(DatasetError, match="step 1 is not what the policy decided on"):
        list(BagEpisodes(write_bag(scene.sent), contract=contract_path))


def test_velocities_become_increments_of_one_control_period(robot, write_bag, contract_path) -> None:
    source = BagEpisodes(write_bag(lockstep(robot).sent), contract=contract_path)
    assert (source.action_spec.names, source.action_spec.units) == (("dx", "dyaw", "gripper"), ("m", "rad", "1"))
    expected = [[0, 0, 0], [0.01, -0.02, 0], [0.02, -0.04, 1], [0.03, -0.06, 0]]
    assert source.action_spec.to_units(source.read(0).actions) == pytest.approx(np.array(expected), abs=1e-8)


def test_a_terminal_image_that_comes_after_the_outcome_still_counts(robot, write_bag, contract_path) -> None:
    scene = lockstep(robot)
    last = max((s for s in scene.sent if s.topic == "/camera"), key=lambda s: s.stamp)
    last.receive += 3 * MS
    (episode,) = BagEpisodes(write_bag(scene.sent), contract=contract_path)
    assert len(episode) == 4
    assert np.array_equal(episode.images["wrist"][4], pixels(4))


def test_the_next_episode_s_samples_are_not_taken_for_the_last_observation(robot, write_bag, contract_path) -> None:
    """Wall stamps, and a reset within the control period."""
    scene = Scene(robot)
    for episode in range(2):
        begin = 50 * episode
        scene.event(begin, "start")
        for k in range(3):
            at = begin + 1 + 7 * k
            image, state = scene.image(at, at, 10 * episode + k), scene.joints(at, at, 10 * episode + k)
            if k < 2:
                scene.decide(at + 2, image, state)
                scene.act(at + 3, 0.1, 0.1, 0.0)
        scene.event(begin + 16, "failure")
    first, second = BagEpisodes(write_bag(scene.sent), contract=contract_path)
    for episode, number in ((first, 0), (second, 10)):
        assert len(episode) == 2
        assert np.array_equal(episode.images["wrist"][2], pixels(number + 2))


def test_a_decision_whose_commands_never_came_is_the_last_observation(robot, write_bag, contract_path) -> None:
    scene = lockstep(robot)
    drop = max(s.receive for s in scene.sent if s.topic == "/gripper")
    final = max(s.stamp for s in scene.sent if s.topic == "/camera")
    sent = [s for s in scene.sent if s.receive != drop and not (s.topic == "/camera" and s.stamp == final)]
    (episode,) = BagEpisodes(write_bag(sent), contract=contract_path)
    assert len(episode) == 3
    assert np.array_equal(episode.images["wrist"][3], pixels(3))


def test_a_consumed_sample_that_is_not_in_the_bag_is_named(robot, write_bag, contract_path) -> None:
    scene = lockstep(robot)
    lost = sorted((s for s in scene.sent if s.topic == "/camera"), key=lambda s: s.stamp)[2]
    path = write_bag([s for s in scene.sent if s is not lost])
    with pytest.raises(
        DatasetError, match=rf"/policy/consumed: the decision at .* saw the sample of /camera stamped {lost.stamp} ns"
    ):
        BagEpisodes(path, contract=contract_path)
    with pytest.raises(DatasetError, match="no episode can be read"):
        BagEpisodes(path, contract=contract_path, partial=True)


def test_a_policy_that_was_held_leaves_a_gap(robot, write_bag, contract_path) -> None:
    """Of decision 2 the commands were suppressed: what it saw ends the first piece."""
    scene = lockstep(robot, steps=6)
    held = sorted(s.receive for s in scene.sent if s.topic == "/twist")[2]
    path = write_bag([s for s in scene.sent if s.receive != held])
    with pytest.raises(DatasetError, match=r"/twist: nothing for 0\.100 s"):
        BagEpisodes(path, contract=contract_path)
    first, last = BagEpisodes(path, contract=contract_path, on_gap="split")
    assert [(len(e), e.info["outcome"]) for e in (first, last)] == [(2, "split"), (3, "success")]
    assert np.array_equal(first.images["wrist"][2], pixels(2))
    assert np.array_equal(last.images["wrist"][0], pixels(3))


def test_a_pause_of_the_policy_is_a_gap_of_its_topic(robot, write_bag, contract_path) -> None:
    scene = Scene(robot)
    scene.event(0, "start")
    for k, at in enumerate([10, 110, 210, 600, 700]):
        image, state = scene.image(at, at, k), scene.joints(at, at, k)
        scene.decide(at + 2, image, state)
        scene.act(at + 3, 0.1, 0.1, 0.0)
    for i, at in ((20, 310), (21, 800)):
        scene.image(at, at, i), scene.joints(at, at, i)
    scene.event(805, "timeout")
    path = write_bag(scene.sent)
    with pytest.raises(DatasetError, match=r"/policy/consumed: nothing for 0\.390 s"):
        BagEpisodes(path, contract=contract_path)
    first, last = BagEpisodes(path, contract=contract_path, on_gap="split")
    assert np.array_equal(first.images["wrist"][3], pixels(20)), "what came one control period after the last decision before it"
    assert (len(first), len(last), bool(last.truncated[-1])) == (3, 2, True)


def test_of_equal_stamps_the_sample_counts_that_had_come(robot, write_bag, contract_path) -> None:
    scene = lockstep(robot)
    first = next(s for s in scene.sent if s.topic == "/camera")
    stamp = (first.stamp - robot.START) / MS
    scene.image(2.5, stamp, 50)  # before the decision at 3 ms
    scene.image(4.5, stamp, 51)  # after it
    decision = next(s for s in scene.sent if s.topic == "/policy/consumed")
    decision.fields["status"][0].values.pop()  # a policy that gives no digest: stamps are all there is
    (episode,) = BagEpisodes(write_bag(scene.sent), contract=contract_path)
    assert np.array_equal(episode.images["wrist"][0], pixels(50))


def test_a_bag_without_reports_is_refused(robot, write_bag, contract_path) -> None:
    sent = [s for s in lockstep(robot).sent if s.topic != "/policy/consumed"]
    with pytest.raises(DatasetError, match="has no topic /policy/consumed"):
        BagEpisodes(write_bag(sent), contract=contract_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("control_hz: 10", "control_hz: 10\nclock: receive", "use clock: header"),
        ("type: JointState, joints: [a, b], units: rad", "type: Twist", "joint_states has none: publish it stamped"),
    ],
)
def test_only_stamped_samples_can_be_named(tmp_path, old: str, new: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CONTRACT.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        TopicContract.load(path)


def test_a_cut_off_recording_keeps_the_decisions_that_are_whole(robot, write_bag, contract_path) -> None:
    scene = lockstep(robot, steps=6)
    lost = sorted((s for s in scene.sent if s.topic == "/camera"), key=lambda s: s.stamp)[5:]
    path = write_bag([s for s in scene.sent if s not in lost])
    (path / "metadata.yaml").unlink()
    next(path.glob("*.mcap")).write_bytes(next(path.glob("*.mcap")).read_bytes()[:-100])
    (episode,) = BagEpisodes(path, contract=contract_path, partial=True)
    assert len(episode) == 4
    assert np.array_equal(episode.images["wrist"][4], pixels(4))


jitter = st.lists(st.floats(0, 60), min_size=12, max_size=12)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(camera=jitter, recorder=jitter, inference=jitter, twice=st.sets(st.integers(0, 11)), steps=st.integers(2, 6))
def test_any_timing_gives_what_the_policy_saw(robot, write_bag, contract_path, camera, recorder, inference, twice, steps) -> None:
    """Camera at 20 Hz, joints at 50 Hz, both late by up to 60 ms on their way to the policy, and otherwise late to the recorder."""
    contract_path.write_text(CONTRACT.replace("tolerance_s: 0.05", "tolerance_s: 0.2"))
    scene = Scene(robot)
    scene.event(-1000, "start")
    arrivals = list[tuple[float, str, Any]]()
    for topic, put, hz in (("camera", scene.image, 20), ("joints", scene.joints, 50)):
        for i in range(round((steps + 2) * 0.1 * hz)):
            stamp = i * 1000 / hz
            sample = put(stamp + recorder[i % 12], stamp, i)
            if i in twice:
                put(stamp + recorder[i % 12] + 1, stamp, i)
            arrivals.append((stamp + camera[(i * 5) % 12], topic, sample))
    for k in range(steps):
        at = 70 + 100 * k + inference[k] / 10
        known = {topic: sample for arrived, topic, sample in sorted(arrivals, key=lambda a: a[0]) if arrived <= at}
        scene.decide(at, known["camera"], known["joints"])
        scene.act(at + 1 + inference[k + 5] / 2, 0.01 * k, -0.02 * k, float(k % 2))
        scene.act(at + 60, 0.9, 0.9, 0.5)  # repeated by a controller: not the first
        scene.actions.pop()
    scene.event(70 + 100 * steps, "success")
    path = write_bag(scene.sent)
    try:
        (episode,) = BagEpisodes(path, contract=contract_path)
    finally:
        shutil.rmtree(path)
    assert_as_seen(scene, episode, TopicContract.load(contract_path), steps)


def samples(times: list[int], receive: list[int] | None = None, topic: str = "/a") -> Samples:
    return Samples(topic, np.array(receive or times, np.int64), np.array(times, np.int64), 50 * MS)


def run(decisions: list[tuple[int, int]], *, observed: Samples, commanded: Samples, stop: int = FOREVER) -> Any:
    """Decisions as (receipt, stamp seen)."""
    made = [TickReport(at, at, {"/a": stamp}) for at, stamp in decisions]
    return follow(made, [observed], [commanded], Window(stop=stop), topic="/c", hz=10, tolerance=50 * MS)


def test_without_an_end_event_the_last_observation_is_one_control_period_later() -> None:
    times = [t * 20 * MS for t in range(20)]
    (ticks,), gaps = run([(t * MS, t * MS) for t in (20, 120)], observed=samples(times), commanded=samples([21 * MS, 121 * MS]))
    assert (ticks.samples[0].tolist(), gaps) == ([1, 6, 11], [])
    (ticks,), _ = run(
        [(t * MS, t * MS) for t in (20, 120)], observed=samples(times), commanded=samples([21 * MS, 121 * MS]), stop=165 * MS
    )
    assert ticks.samples[0].tolist() == [1, 6, 8], "what there was when it ended"


def test_a_slow_topic_may_be_seen_again() -> None:
    slow = samples([0, 250 * MS])
    (ticks,), _ = run([(20 * MS, 0), (120 * MS, 0)], observed=slow, commanded=samples([21 * MS, 121 * MS]))
    assert ticks.samples[0].tolist() == [0, 0, 0]
    assert (np.diff(ticks.times) > 0).all()


def test_nothing_decided_gives_nothing() -> None:
    assert run([], observed=samples([0]), commanded=samples([5])) == ([], [])
    assert run([(1, 0)], observed=samples([0]), commanded=samples([0])) == ([], [])
    with pytest.raises(UnseenSample, match="stamped 7 ns"):
        run([(1, 7)], observed=samples([0]), commanded=samples([5]))


def test_time_that_goes_back_parts_the_ticks() -> None:
    made = [TickReport(receive * MS, time * MS, {"/a": time * MS}) for receive, time in ((1, 500), (2, 600), (3, 100), (4, 200))]
    own = samples([500 * MS, 600 * MS, 100 * MS, 200 * MS, 300 * MS], receive=[0, 2 * MS, 3 * MS, 4 * MS, 5 * MS])
    commanded = samples([t * MS + 10 for t in (1, 2, 3, 4)])
    runs, gaps = follow(made, [own], [commanded], Window(), topic="/c", hz=10, tolerance=50 * MS)
    assert [r.samples[0].tolist() for r in runs] == [[0, 1], [2, 3, 4]]
    assert [(gap.topic, gap.length) for gap in gaps] == [("/c", -500 * MS)]
