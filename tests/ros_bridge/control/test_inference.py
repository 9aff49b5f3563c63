"""The thread of the network, with a policy that can be held up at will."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from qtransformer_ros.control.effects import Request
from qtransformer_ros.control.inference import InferenceResult, InferenceThread, ScoreRequest, Scores, measured_seconds


class SlowPolicy:
    """Decides when it is let; remembers what it was asked."""

    def __init__(self) -> None:
        self.let, self.begun = threading.Semaphore(0), threading.Semaphore(0)
        self.seen, self.value = [], 0.5

    def reset(self) -> None:
        self.seen.append("reset")

    def decide(self, observation):
        self.begun.release()
        self.let.acquire(timeout=10)
        self.seen.append(observation)
        if observation == "broken":
            raise ValueError("no such observation")
        q_values = np.array([[0.5, np.nan if observation == "overflow" else 0.1]])
        return SimpleNamespace(action=np.array([1.0, 2.0]), q_values=q_values)

    def take_back(self):
        self.seen.append("taken back")

    def score(self, observation, actions):
        self.seen.append("score")
        return actions * 2


@pytest.fixture
def policy():
    return SlowPolicy()


@pytest.fixture
def thread(policy):
    answered = threading.Semaphore(0)
    thread = InferenceThread(policy, answered.release)
    thread.answered = answered
    yield thread
    for _ in range(20):
        policy.let.release()
    assert thread.end(5.0)


def request(observation, number=0, generation=0, acted_on=None, stamps=None) -> Request:
    """By default all before it was carried out."""
    acted_on = number - 1 if acted_on is None else acted_on
    return Request(observation=observation, stamps=stamps or {}, number=number, generation=generation, acted_on=acted_on)


def wait(thread, count) -> list:
    for _ in range(count):
        assert thread.answered.acquire(timeout=10)
    return [thread.answers.popleft() for _ in range(count)]


def test_of_the_observations_that_came_meanwhile_only_the_newest_is_decided_on(policy, thread) -> None:
    thread.decide(request("first", 0))
    assert policy.begun.acquire(timeout=10)
    for number in (1, 2, 3):
        thread.decide(request(f"later {number}", number, acted_on=-1))
    for _ in range(2):
        policy.let.release()
    answers = wait(thread, 2)
    assert [a.request.number for a in answers] == [0, 3]
    assert policy.seen == ["reset", "first", "taken back", "later 3"], "nothing came of the first"
    assert isinstance(answers[1], InferenceResult)
    assert answers[1].decided.value == 0.5
    assert answers[1].decided.seconds >= 0
    np.testing.assert_array_equal(answers[1].decided.action, [1.0, 2.0])


def test_a_new_generation_forgets_the_episode_first(policy, thread) -> None:
    for number, generation in enumerate([0, 0, 1]):
        policy.let.release()
        thread.decide(request(number, number, generation))
        wait(thread, 1)
    assert policy.seen == ["reset", 0, 1, "reset", 2]


def test_what_the_network_raises_is_an_answer_and_the_thread_lives_on(policy, thread) -> None:
    policy.let.release()
    thread.decide(request("broken"))
    (answer,) = wait(thread, 1)
    assert "no such observation" in str(answer.error)
    assert answer.decided is None
    policy.let.release()
    thread.decide(request("fine", 1))
    assert wait(thread, 1)[0].decided is not None


def test_a_finite_action_by_values_that_are_not_is_none(policy, thread) -> None:
    policy.let.release()
    thread.decide(request("overflow"))
    (answer,) = wait(thread, 1)
    assert "values are not finite" in str(answer.error)
    assert answer.decided is None


def test_decisions_come_before_scores_and_scores_do_not_pile_up(policy, thread) -> None:
    thread.decide(request("first"))
    assert policy.begun.acquire(timeout=10)
    for tag in range(12):
        thread.score(ScoreRequest(tag=tag, actions=np.ones((1, 2)), seen=None))
    thread.decide(request("second", 1))
    policy.let.release()
    policy.let.release()
    answers = wait(thread, 10)
    assert policy.seen[:3] == ["reset", "first", "second"]
    scores = [a for a in answers if isinstance(a, Scores)]
    assert [s.request.tag for s in scores] == list(range(4, 12))
    np.testing.assert_array_equal(scores[0].scores, [[2.0, 2.0]])


def test_what_was_decided_and_not_carried_out_is_taken_back(policy, thread) -> None:
    for number, acted_on in ((1, 0), (2, 1), (3, 1), (4, 3)):
        policy.let.release()
        thread.decide(request(number, number, acted_on=acted_on))
        wait(thread, 1)
    assert policy.seen == ["reset", 1, 2, "taken back", 3, 4]


def test_what_was_replaced_before_it_was_decided_on_is_not_taken_back(policy, thread) -> None:
    """Nothing was decided on it, and what was decided before it was carried out."""
    thread.decide(request("first", 1))
    assert policy.begun.acquire(timeout=10)
    thread.decide(request("replaced", 2, acted_on=1))
    thread.decide(request("newest", 3, acted_on=1))
    policy.let.release()
    policy.let.release()
    wait(thread, 2)
    assert policy.seen == ["reset", "first", "newest"]


def test_scores_bear_the_stamp_of_what_they_are_for_and_leave_a_running_episode_alone(policy, thread) -> None:
    def scored(seen):
        thread.score(ScoreRequest(tag=None, actions=np.ones((1, 2)), seen=seen))
        return wait(thread, 1)[0]

    asked_before = request("before", -1, generation=0, stamps={"/camera": 5})
    assert scored(asked_before).stamp_ns == 5
    policy.let.release()
    thread.decide(request("first", 1, generation=1, stamps={"/camera": 7, "/joints": 6}))
    wait(thread, 1)
    refused = scored(asked_before)
    assert refused.scores is None
    assert "before the episode" in str(refused.error)
    assert scored(None).stamp_ns == 7
    assert policy.seen == ["reset", "score", "reset", "first", "score"], "what was kept of the episode is still there"


def test_asking_never_waits(policy, thread) -> None:
    thread.decide(request("first"))
    assert policy.begun.acquire(timeout=10)
    start = time.monotonic()
    for number in range(1000):
        thread.decide(request("next", number))
    assert time.monotonic() - start < 1.0


def test_an_end_that_the_network_delays_is_reported(policy) -> None:
    thread = InferenceThread(policy, lambda: None)
    thread.decide(request("first"))
    assert policy.begun.acquire(timeout=10)
    assert not thread.end(0.01)
    policy.let.release()
    assert thread.end(5.0)


def test_times_are_taken_at_least_five_times_and_leave_no_episode() -> None:
    policy = SlowPolicy()
    for _ in range(8):
        policy.let.release()
    assert len(measured_seconds(policy, "blank", budget_s=0.0)) == 5
    assert policy.seen == ["blank"] * 8 + ["reset"]
