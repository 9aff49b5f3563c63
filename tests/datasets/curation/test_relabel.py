"""Labels by hand and by function."""

from dataclasses import replace

import numpy as np
import pytest

from qtransformer.errors import DatasetError
from qtransformer_datasets import open_episodes
from qtransformer_datasets.curation.relabel import label_by_function, label_by_hand, read_labels


@pytest.fixture
def source(write_file, make_episode):
    return open_episodes(write_file([make_episode(2 + i, i, success=False) for i in range(3)]))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "episode,success\n0,true\n2,0\n"),
        ("a.csv", "who,success,episode\nme,Yes,0\nyou,no,2\n"),
        ("a.json", '{"0": true, "2": false}'),
        ("a.json", '{"0": 1, "2": "failure"}'),
    ],
)
def test_tables_name_episodes_by_number(tmp_path, source, name, text) -> None:
    path = tmp_path / name
    path.write_text(text)
    labels = read_labels(path, 3)
    assert labels == {0: True, 2: False}
    assert [episode.success for episode in label_by_hand(source, labels)] == [True, False, False]
    assert label_by_hand(source, labels).read(0).success


def test_a_list_labels_from_the_first_on(tmp_path) -> None:
    (tmp_path / "a.json").write_text("[true, false]")
    assert read_labels(tmp_path / "a.json", 3) == {0: True, 1: False}


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("a.csv", "number,good\n0,true\n", "must name the columns episode and success"),
        ("a.csv", "episode,success\n3,true\n", "from 0 to 2, found '3'"),
        ("a.csv", "episode,success\n-1,true\n", "from 0 to 2"),
        ("a.csv", "episode,success\n1,true\n1,false\n", "listed twice"),
        ("a.csv", "episode,success\n1,maybe\n", "found 'maybe'"),
        ("a.csv", "episode,success\n1\n", "found None"),
        ("a.json", "{", "expected labels as JSON or CSV"),
        ("a.json", "3", "not a mapping or a list"),
        ("a.json", "[" * 10000, "expected labels as JSON or CSV"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, name, text, answer) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DatasetError, match=answer) as caught:
        read_labels(path, 3)
    assert str(path) in str(caught.value)


def test_a_missing_table_is_refused(tmp_path) -> None:
    with pytest.raises(DatasetError, match=r"none\.csv"):
        read_labels(tmp_path / "none.csv", 3)


def test_a_function_judges_or_labels(source) -> None:
    assert [e.success for e in label_by_function(source, lambda episode: len(episode) > 2, "f")] == [False, True, True]
    ones = label_by_function(source, lambda e: replace(e, rewards=np.ones(len(e), np.float32)), "f")
    assert [episode.rewards.sum() for episode in ones] == [2, 3, 4]


def test_a_function_that_fails_is_named_with_the_episode(source) -> None:
    for function, answer in [
        (lambda episode: episode.info["mode"], r"episode 0: function=f raised KeyError"),
        (lambda episode: 3, "expected to return true, false or an Episode, found int"),
        (lambda episode: replace(episode, actions=episode.actions * 0), "it changed actions"),
    ]:
        with pytest.raises(DatasetError, match=answer):
            list(label_by_function(source, function, "f"))
