"""Outcomes by seed, kept on disk after every episode."""

import json
from pathlib import Path

import pytest

from qtransformer.errors import ConfigError
from qtransformer_ros.recorder.episode_counts import EpisodeCounts, EpisodeOutcome


def outcome(seed: int, word: str) -> EpisodeOutcome:
    return EpisodeOutcome(seed=seed, outcome=word, steps=8, seconds=1.5, bag=f"episode_{seed:04d}")


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "episodes.json"
    first = EpisodeCounts.open(path)
    for seed, word in ((3, "success"), (5, "none"), (4, "failure")):
        first.add(outcome(seed, word))
    again = EpisodeCounts.open(path)
    assert again.left(range(3, 8)) == [5, 6, 7], "what ended without a word is tried again"
    again.add(outcome(5, "success"))
    assert [e["seed"] for e in json.loads(path.read_text())["episodes"]] == [3, 4, 5]


def test_success_comes_with_its_wilson_interval(tmp_path: Path) -> None:
    """8 of 10: 0.80 [0.490, 0.943] (Wilson 1927, 95 %)."""
    counts = EpisodeCounts.open(tmp_path / "episodes.json")
    assert counts.text() == "success 0.00 [0.00, 1.00] over 0 episodes"
    for seed in range(10):
        counts.add(outcome(seed, "success" if seed < 8 else "timeout" if seed == 8 else "none"))
    assert counts.text() == "success 0.80 [0.49, 0.94] over 10 episodes: 8 success, 1 timeout, 1 none"
    data = json.loads((tmp_path / "episodes.json").read_text())
    assert (data["count"], data["success"]) == (10, 0.8)
    assert (data["low"], data["high"]) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))


@pytest.mark.parametrize("content", ["{", "[]", '{"episodes": [{"seed": 1}]}', '{"episodes": 3}'])
def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "episodes.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="move the file away"):
        EpisodeCounts.open(path)
    assert path.read_text() == content


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"episodes\.json: cannot be written"):
        EpisodeCounts.open(tmp_path / "file" / "episodes.json")
