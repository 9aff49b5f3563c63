"""The room's README runs, and lists every option and every key there is, with its default, and no other."""

import inspect
import re
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path

import pytest

from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.formats import FORMATS, open_episodes, opening_options
from qtransformer_datasets.rosbag.contract_entries import (
    ActionTopic,
    CameraTopic,
    EpisodeRule,
    EventRule,
    NextState,
    OutcomeRule,
    TextRule,
    VectorTopic,
)
from qtransformer_datasets.rosbag.message_types import CAMERA_TYPES, VECTOR_TYPES
from qtransformer_datasets.rosbag.topic_contract import TopicContract

README = (Path(__file__).parents[2] / "datasets" / "README.md").read_text()
PLAIN = (bool, int, float, str, Enum)


def rows(title: str) -> dict[str, str]:
    """Name to default of the table that follows a title; names may share a row."""
    table = re.search(r"^\|.*?(?=\n\n|\Z)", README[README.index(title) :], flags=re.DOTALL | re.MULTILINE)
    assert table, title
    cells = [line.split("|")[1:3] for line in table.group().splitlines()[2:]]
    return {name: default.strip().strip("`") for names, default in cells for name in re.findall(r"`(\w+)`", names)}


def written(default: object) -> str:
    value = default.value if isinstance(default, Enum) else default
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def check(found: dict[str, str], expected: dict[str, object]) -> None:
    assert list(found) == list(expected) or sorted(found) == sorted(expected)
    plain = {name: written(default) for name, default in expected.items() if isinstance(default, PLAIN) and default != ""}
    assert {name: found[name] for name in plain} == plain


def test_the_example_runs(make_episode, write_file, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "data").mkdir()
    for name in ("low", "more"):
        write_file([make_episode(seed=1)], f"data/{name}.hdf5")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(block, {})  # what the reader would type
    assert capsys.readouterr().out.startswith("1 ")


def test_options_of_every_dataset() -> None:
    own = {f.name: f.default for f in fields(DataSource) if f.name not in ("path", "options")}
    opening = {name: inspect.signature(open_episodes).parameters[name].default for name in opening_options()}
    check(rows("## Options of every dataset"), own | opening)


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_options_of_a_format(kind) -> None:
    parameters = inspect.signature(kind.load(kind.reader)).parameters
    expected = {name: parameter.default for name, parameter in parameters.items() if name != "path"}
    found = rows(f"### {kind.name}")
    check({name: "0.0001" if name == "tolerance_s" else text for name, text in found.items()}, expected)


def keys(kind: type) -> dict[str, object]:
    return {f.name: f.default if f.default is not MISSING else None for f in fields(kind)}


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("## The topic contract", keys(TopicContract)),
        ("**Camera entry**", keys(CameraTopic)),
        ("**Vector entry**", keys(VectorTopic)),
        ("An `action` entry has besides", {k: v for k, v in keys(ActionTopic).items() if k not in keys(VectorTopic)}),
    ],
    ids=["contract", "camera", "vector", "action"],
)
def test_keys_of_the_contract(title: str, expected: dict[str, object]) -> None:
    check(rows(title), expected)


@pytest.mark.parametrize("kind", [EpisodeRule, EventRule, NextState, OutcomeRule, TextRule], ids=lambda kind: kind.__name__)
def test_keys_that_prose_names(kind: type) -> None:
    contract = README[README.index("## The topic contract") :]
    assert [name for name in keys(kind) if f"`{name}`" not in contract] == []


def test_types_of_messages() -> None:
    contract = README[README.index("## The topic contract") :]
    assert [name for name in (*CAMERA_TYPES, *VECTOR_TYPES) if f"`{name}`" not in contract] == []
