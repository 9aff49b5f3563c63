"""What `data inspect` and `data validate` tell of bags: topic by topic, also of those that cannot be read as episodes."""

from typing import Any

import pytest

from qtransformer_datasets import inspect_dataset, verify
from qtransformer_datasets.curation.inspect import inspect_source
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.rosbag.reader import BagEpisodes
from qtransformer_datasets.rosbag.report import inspect_bag


@pytest.fixture
def gappy(robot, write_bag) -> Any:
    """The wrist camera drops two of ten images, 0.3 s after the first."""
    lost = [robot.START + i * 100 * robot.MS for i in (4, 5)]
    sent = robot.demonstration(steps=9)
    return write_bag([s for s in sent if not (s.topic == "/wrist/image_raw" and s.stamp in lost)])


def row(text: str, topic: str) -> list[str]:
    [line] = [line for line in text.splitlines() if line.startswith(topic)]
    return line.split()


def test_dropped_samples_are_those_that_would_fill_the_gaps(gappy) -> None:
    dropped = {topic.topic: topic.dropped for topic in inspect_bag(gappy).topics}
    assert dropped["/wrist/image_raw"] == 2
    assert sum(dropped.values()) == 2


def test_lost_messages_are_those_that_the_metadata_counts_and_nobody_finds(bag) -> None:
    metadata = bag / "metadata.yaml"
    before = {topic.topic: topic.lost for topic in inspect_bag(bag).topics}
    assert not any(before.values())
    head, tail = metadata.read_text().rsplit("message_count: 5", 1)  # that of /commands
    metadata.write_text(f"{head}message_count: 8{tail}")
    assert {t.topic: t.lost for t in inspect_bag(bag).topics} == before | {"/commands": 3}


def test_a_bag_without_a_contract_is_inspected_by_topic(bag) -> None:
    text = inspect_dataset(bag)
    assert "say so: contract=FILE.yaml" in text
    assert "episodes" not in text
    assert row(text, "/wrist/image_raw")[1:4] == ["sensor_msgs/msg/Image", "6", "10.0"]


def test_a_bag_that_is_refused_for_its_gap_still_shows_its_topics(gappy, contract_file) -> None:
    options = {"contract": str(contract_file())}
    found, verdict = inspect_source(DataSource(path=str(gappy), options=options)), verify(gappy, **options)
    [report] = verdict.reports
    assert found.numbers["reports"] == [report]
    assert report in found.text
    assert row(report, "/wrist/image_raw")[2] == "8"
    assert "0.300 s at 0.30 s" in report
    [problem] = verdict.problems
    assert "/wrist/image_raw: nothing for 0.300 s at 0.30 s" in problem


def test_what_splits_a_bag_is_told_with_its_episodes(gappy, contract_file) -> None:
    verdict = verify(gappy, contract=str(contract_file()), on_gap="split")
    assert (verdict.lengths, verdict.problems) == ({0: 3, 1: 3}, [])
    [report] = verdict.reports
    assert "episodes      2" in report
    assert "/wrist/image_raw: nothing for 0.300 s at 0.30 s" in report


def test_bags_that_partial_leaves_out_are_problems(robot, write_bag, contract_file, tmp_path) -> None:
    (tmp_path / "all").mkdir()
    for name in ("all/a", "all/b"):
        write_bag(robot.demonstration(), name)
    (torn,) = (tmp_path / "all" / "b").glob("*.mcap")
    torn.write_bytes(torn.read_bytes()[:40])
    verdict = verify(tmp_path / "all", contract=str(contract_file()), partial=True)
    assert verdict.lengths == {0: 5}
    assert len(verdict.reports) == 2
    assert verdict.problems
    assert all("all/b" in problem for problem in verdict.problems)


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
