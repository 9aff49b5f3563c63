"""One slot per topic: what is newer, what is late, what only seems to be alive."""

from array import array
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtransformer_ros.control.buffer import LatestSamples, message_stamp_ns
from tests.ros_bridge.hand_robot import MS, START_NS, HandClock, image, joint_state


def samples(clock: HandClock, **options: Any) -> LatestSamples:
    return LatestSamples(clock, cameras=["camera"], **options)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def test_the_newest_sample_with_its_age_and_stamp(clock: HandClock) -> None:
    found = samples(clock)
    assert found.age_s("joints") is None
    assert found.put("joints", joint_state(START_NS)) == ""
    clock.pass_s(0.03)
    assert found.age_s("joints") == pytest.approx(0.03)
    assert found.put("joints", newer := joint_state(START_NS + 30 * MS)) == ""
    assert found.age_s("joints") == 0
    assert found["joints"].message is newer
    assert found.stamps(["joints", "camera"]) == {"joints": START_NS + 30 * MS}
    assert found.taken("joints") == 2


def test_late_and_repeated_samples_are_dropped_and_their_topic_ages(clock: HandClock) -> None:
    found = samples(clock)
    found.put("joints", first := joint_state(START_NS))
    clock.pass_s(0.1)
    assert found.put("joints", joint_state(START_NS)) == "repeated_stamp"
    assert found.put("joints", joint_state(START_NS - 1)) == "out_of_order"
    assert found["joints"].message is first
    assert found.age_s("joints") == pytest.approx(0.1)
    assert found.counts == {("joints", "taken"): 1, ("joints", "repeated_stamp"): 1, ("joints", "out_of_order"): 1}


@pytest.mark.parametrize(("ahead_ms", "why"), [(49, ""), (50, ""), (51, "future"), (10**9, "future")])
def test_a_stamp_from_the_future_is_refused(clock: HandClock, ahead_ms: int, why: str) -> None:
    assert samples(clock).put("joints", joint_state(START_NS + ahead_ms * MS)) == why


def test_an_unset_stamp_means_receipt_unless_stamps_are_required(clock: HandClock) -> None:
    found = samples(clock)
    for _ in range(2):  # twice at one instant: a clock that stands still is no fault
        assert found.put("joints", joint_state(0)) == ""
    assert found["joints"].stamp_ns == START_NS
    assert samples(clock, require_stamps=True).put("joints", joint_state(0)) == "no_stamp"
    assert samples(clock, require_stamps=True).put("joints", SimpleNamespace(data=[1.0])) == ""  # its type has none


def test_a_negative_stamp_is_refused(clock: HandClock) -> None:
    assert samples(clock).put("joints", joint_state(-1)) == "bad_stamp"


def test_a_contract_may_go_by_receipt(clock: HandClock) -> None:
    found = samples(clock, by_receipt=True)
    assert found.put("joints", joint_state(START_NS + 10**12)) == ""
    assert found["joints"].stamp_ns == START_NS


def test_by_receipt_a_header_that_repeats_itself_is_the_same_sample_and_one_of_another_clock_is_not(clock: HandClock) -> None:
    found = samples(clock, by_receipt=True)
    for header, why in ((10**9, ""), (10**9, "repeated_stamp"), (9 * 10**8, ""), (0, ""), (0, "")):
        clock.pass_s(0.1)
        assert found.put("camera", image(header)) == why
    assert found.taken("camera") == 4


def test_skew_is_the_largest_difference_of_stamps(clock: HandClock) -> None:
    found = samples(clock)
    assert found.skew_s(["camera", "joints"]) == 0
    found.put("camera", image(START_NS - 300 * MS))
    assert found.skew_s(["camera", "joints"]) == 0
    found.put("joints", joint_state(START_NS))
    assert found.skew_s(["camera", "joints"]) == pytest.approx(0.3)


@pytest.mark.parametrize("kind", [bytes, lambda data: array("B", data.tobytes()), np.asarray])
def test_a_camera_that_repeats_itself_to_the_last_bit_is_frozen(clock: HandClock, kind: Any) -> None:
    found = samples(clock, max_identical=3)
    for i, (value, frozen) in enumerate([(7, False), (7, False), (7, True), (7, True), (8, False), (8, False)]):
        message = image(START_NS + i, value)
        message.data = kind(message.data)
        found.put("camera", message)
        assert found.frozen("camera") is frozen
    found.clear()
    found.put("camera", image(START_NS + 9, 8))
    assert not found.frozen("camera")
    found.clear()
    assert "camera" not in found


def test_by_default_images_may_repeat(clock: HandClock) -> None:
    found = samples(clock)
    for i in range(50):
        found.put("camera", image(START_NS + i, 7))
    assert not found.frozen("camera")


def test_types_without_a_header_have_no_stamp() -> None:
    assert message_stamp_ns(SimpleNamespace(data=1)) is None
    assert message_stamp_ns(joint_state(3 * 10**9 + 7)) == 3 * 10**9 + 7


@given(st.lists(st.integers(-1000, 200), max_size=30))
def test_stamps_only_ever_go_forward(offsets_ms: list[int]) -> None:
    found, kept = samples(HandClock()), []
    for offset in offsets_ms:
        if found.put("joints", joint_state(START_NS + offset * MS)) == "":
            kept.append(found["joints"].stamp_ns)
    assert kept == sorted(set(kept))
    assert all(stamp <= START_NS + 50 * MS for stamp in kept)
    assert sum(found.counts.values()) == len(offsets_ms)
