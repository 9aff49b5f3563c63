"""A network that is slow or late: nothing queues, nothing old is acted on."""

from qtransformer_ros.control.effects import Effects
from tests.ros_bridge.hand_robot import (
    CAMERA,
    JOINTS,
    RUNNING,
    Robot,
    image,
    is_held,
    make,
)


def test_an_answer_that_is_late_is_a_miss_and_a_newer_request_replaces_it(robot: Robot) -> None:
    old = robot.ask()
    robot.clock.pass_s(0.1)
    new = robot.ask()
    assert robot.runtime.counts["misses"] == 1
    assert new.number == old.number + 1
    assert robot.answer(old) == Effects()
    assert robot.runtime.counts["dropped_answers"] == 1
    assert robot.answer(new).command is not None


def test_inference_that_is_always_late_is_held(robot: Robot) -> None:
    for n in range(4):
        assert robot.runtime.state is RUNNING, n
        robot.see()
        robot.do(robot.runtime.tick())
        robot.clock.pass_s(0.1)
    is_held(robot, "inference_late: 3 control periods")
    assert robot.runtime.counts["misses"] == 3


def test_a_miss_now_and_then_is_forgiven(robot: Robot) -> None:
    for _ in range(10):
        robot.ask()
        robot.clock.pass_s(0.1)
        robot.answer(robot.ask())
        robot.clock.pass_s(0.08)
    assert robot.runtime.state is RUNNING
    assert robot.runtime.counts["misses"] == len(robot.commands) == 10


def test_an_answer_older_than_its_timeout_is_not_acted_on(robot: Robot) -> None:
    request = robot.ask()
    robot.clock.pass_s(0.14)
    robot.see()
    assert robot.answer(request, after_s=0.02) == Effects()
    assert (robot.runtime.counts["misses"], robot.runtime.counts["dropped_answers"]) == (1, 1)


def test_nothing_queues_however_slow_the_network(robot: Robot) -> None:
    robot = make(max_consecutive_misses=10**6).run()
    waiting = []
    for _ in range(600):
        waiting = [robot.ask()]
        robot.clock.pass_s(0.1)
    assert robot.runtime.counts["misses"] == 599
    assert robot.answer(waiting[0], after_s=0.0).command is not None


def test_an_answer_from_before_a_reset_is_dropped(robot: Robot) -> None:
    request = robot.ask()
    assert robot.do(robot.runtime.reset()).reset_history
    assert robot.runtime.state is RUNNING
    assert robot.answer(request) == Effects()
    robot.clock.pass_s(0.05)
    assert robot.ask().generation > request.generation


def test_one_late_answer_is_one_miss(robot: Robot) -> None:
    request = robot.ask()
    robot.clock.pass_s(0.1)
    robot.do(robot.runtime.tick())  # nothing new to ask about
    robot.answer(request, after_s=0.06)
    assert robot.runtime.counts["misses"] == 1


def test_a_decision_on_a_world_that_went_stale_meanwhile_is_not_acted_on() -> None:
    robot = make(joint_timeout_s=0.05).run()
    robot.answer(robot.ask(), after_s=0.06)
    is_held(robot, "joints_stale")
    assert robot.commands == []


def test_samples_that_belong_together_now_and_then_are_no_skew(robot: Robot) -> None:
    for n in range(10):
        robot.clock.pass_s(0.12)
        robot.see(*([JOINTS] if n % 2 else []))
        if request := robot.do(robot.runtime.tick()).request:
            robot.answer(request, after_s=0)
    assert robot.runtime.state is RUNNING
    assert robot.runtime.counts["skewed"] == 5


def test_a_camera_may_change_its_size_at_a_reset(robot: Robot) -> None:
    robot.do(robot.runtime.reset())
    robot.do(robot.runtime.receive(CAMERA, image(robot.clock.time_ns, size=(8, 8))))
    assert "rejected" not in robot.runtime.snapshot().topics[CAMERA]
