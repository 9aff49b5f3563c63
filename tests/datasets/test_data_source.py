"""How a dataset is said: strictly read, kept, and opened with its options."""

from typing import Any, ClassVar

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qtransformer.cli.compose import compose_settings
from qtransformer.errors import ConfigError, DatasetError
from qtransformer.types import ObservationSpec
from qtransformer_datasets import formats
from qtransformer_datasets.data_source import DataSource, Rewards, check_options
from qtransformer_datasets.robomimic import reader as robomimic_hdf5


def test_a_path_is_enough() -> None:
    assert DataSource.parse("a.hdf5") == DataSource(path="a.hdf5")
    assert DataSource(path="a.hdf5").to_value() == "a.hdf5"


def test_keys_that_are_not_its_own_are_the_readers() -> None:
    source = DataSource.parse({"path": "a.hdf5", "dones": "terminated", "weight": 2, "cameras": ["wrist"], "image_size": 84})
    assert source.options == {"dones": "terminated"}
    assert (source.weight, source.cameras, source.image_size) == (2.0, {"wrist": "wrist"}, (84, 84))


@given(
    st.fixed_dictionaries(
        {"path": st.text(min_size=1)},
        optional={
            "format": st.sampled_from(["robomimic", "auto"]),
            "weight": st.floats(0.01, 10),
            "cameras": st.dictionaries(st.text("abc", min_size=1), st.text("abc", min_size=1), max_size=3),
            "image_size": st.tuples(st.integers(1, 99), st.integers(1, 99)).map(list),
            "success": st.booleans(),
            "rewards": st.sampled_from(["logged", "success"]),
            "reward_scale": st.floats(-5, 100),
            "step_reward": st.floats(-5, 5),
            "reward_noise": st.floats(0, 5),
            "noise_seed": st.integers(0, 9),
            "dones": st.sampled_from(["terminated", "truncated"]),
            "proprio": st.lists(st.text("xyz", min_size=1), max_size=3),
        },
    )
)
def test_what_is_kept_is_what_was_said(value) -> None:
    source = DataSource.parse(value)
    assert DataSource.parse(yaml.safe_load(yaml.safe_dump(source.to_value()))) == source


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (3, "expected a path"),
        ({"file": "a"}, "expected a path"),
        ({"path": "a", "weight": 0}, "weight: expected a number above 0"),
        ({"path": "a", "weight": True}, "weight: expected a number above 0"),
        ({"path": "a", "weight": float("nan")}, "weight: expected a number above 0"),
        ({"path": "a", "cameras": "wrist"}, "cameras: expected {new: old}"),
        ({"path": "a", "cameras": {"a": 3}}, "cameras: expected {new: old}"),
        ({"path": "a", "image_size": 0}, "image_size: expected a number of pixels"),
        ({"path": "a", "image_size": [1, 2, 3]}, "image_size: expected a number of pixels"),
        ({"path": "a", "image_size": True}, "image_size: expected a number of pixels"),
        ({"path": "a", "rewards": "dense"}, "rewards: expected one of logged, success"),
        ({"path": "a", "reward_scale": float("inf")}, "reward_scale: expected a number"),
        ({"path": "a", "reward_scale": True}, "reward_scale: expected a number"),
        ({"path": "a", "step_reward": "-1"}, "step_reward: expected a number"),
        ({"path": "a", "reward_noise": -0.1}, "reward_noise: expected a number of at least 0"),
        ({"path": "a", "reward_noise": float("nan")}, "reward_noise: expected a number of at least 0"),
        ({"path": "a", "reward_noise": "much"}, "reward_noise: expected a number of at least 0"),
        ({"path": "a", "noise_seed": -1}, "noise_seed: expected a whole number"),
        ({"path": "a", "noise_seed": 0.5}, "noise_seed: expected a whole number"),
        ({"path": "a", "format": 3}, "format: expected text"),
        ({"path": "a", "dones": object()}, "option 'dones'"),
    ],
)
def test_anything_else_is_refused(value, answer: str) -> None:
    with pytest.raises(ConfigError, match=answer.replace("{", r"\{")):
        DataSource.parse(value)


def test_it_opens_with_its_options(tmp_path, write_foreign, foreign_demo) -> None:
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo(4)])
    value = {"path": str(path), "dones": "terminated", "cameras": {"front": "agentview"}, "image_size": [3, 4]}
    source = DataSource.parse(value | {"success": False, "rewards": "success"}).open()
    assert dict(source.observation_spec.cameras) == {"front": (3, 4, 3)}
    [episode] = list(source)
    assert episode.terminated[-1]
    assert not episode.success
    assert not episode.rewards.any()
    assert DataSource.parse(value).open().read(0).rewards[-1] == 1


def test_what_is_said_of_success_contradicts_no_episode(write_file, write_foreign, foreign_demo, make_episode, tmp_path) -> None:
    path = str(write_file([make_episode(2, success=True), make_episode(2, 1, success=False)]))
    for said, index, went in ((True, 1, "failed"), (False, 0, "succeeded")):
        source = DataSource(path=path, success=said).open()
        assert source.read(1 - index).success is said
        with pytest.raises(
            DatasetError, match=rf"demo_{index}: success:{str(said).lower()} contradicts .* it {went}; .*data relabel"
        ):
            source.read(index)
    derived = write_foreign(tmp_path / "f.hdf5", [foreign_demo(4)])  # of rewards
    assert not DataSource(path=str(derived), success=False, options={"dones": "terminated"}).open().read(0).success


def test_it_is_typed_as_a_command_line_takes_it() -> None:
    value = {"path": "a b.hdf5", "cameras": {"x": "left"}, "image_size": [8, 9], "dones": "terminated", "clip_actions": True}
    source = DataSource.parse(value)
    typed = source.typed(success=[0, 3])
    assert typed == "{path:'a b.hdf5',cameras:{x:left},image_size:[8,9],dones:terminated,clip_actions:true,success:[0,3]}"
    composed = compose_settings("train", [f"dataset={typed}", "run=r"])
    assert DataSource.parse(composed.dataset) == DataSource.parse(value | {"success": [0, 3]})
    assert source.typed_options() == " dones=terminated clip_actions=true"
    assert DataSource(path="a").typed() == "{path:a}"


def test_options_are_refused_with_the_likely_one_of_reader_dataset_or_verb(write_file, make_episode) -> None:
    path = str(write_file([make_episode(2)]))
    for name, answer in {"done": "dones", "camera": "cameras", "sucess": "success", "jsn": "json"}.items():
        with pytest.raises(ConfigError, match=f"no option '{name}'; did you mean {answer}"):
            check_options(DataSource(path=path, options={name: 1}), beside=["json"])
    with pytest.raises(ConfigError, match=r"there are: dones, .*rewards.*format, weight"):
        DataSource(path=path, options={"zzz": 1}).open()
    for name, answer in {"wieght": "weight", "fromat": "format"}.items():
        with pytest.raises(ConfigError, match=f"no option '{name}'; did you mean {answer}"):
            DataSource.parse({"path": path, name: 2}).open()


class PickyReader:
    """A reader that has cameras and success among its own options."""

    asked: ClassVar[dict[str, Any]] = {}

    def __init__(self, path, *, cameras=None, success=None) -> None:
        self.asked.update(cameras=cameras, success=success)
        self.path, self.attributes, self.opening = path, {}, None
        self.action_spec, self.observation_spec = None, ObservationSpec({"left": (4, 4, 3)}, (), (), 10.0)


def test_a_reader_is_not_asked_for_cameras_that_are_dropped_and_may_know_more_of_success(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(robomimic_hdf5, "PickyReader", PickyReader, raising=False)
    picky = formats.Format("picky", "robomimic.reader:PickyReader", None, "", lambda path: False)
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, picky))
    value = {"path": str(tmp_path), "format": "picky", "cameras": {"a": "left", "b": "left"}, "success": [0, 3]}
    source = DataSource.parse(value).open()
    assert PickyReader.asked == {"cameras": ["left"], "success": [0, 3]}
    assert set(source.observation_spec.cameras) == {"a", "b"}
    assert DataSource.parse(value).to_value() == value


def test_success_is_yes_or_no_where_the_reader_knows_no_more(write_file, make_episode) -> None:
    with pytest.raises(ConfigError, match="success expected true or false, found 'yes'"):
        DataSource.parse({"path": str(write_file([make_episode(2)])), "format": "minari", "success": "yes"}).open()


def test_nothing_in_a_mapping_chooses_code(write_file, make_episode) -> None:
    path = str(write_file([make_episode(2)]))
    for name in ("_target_", "reader", "function"):
        with pytest.raises(ConfigError, match="no option"):
            DataSource.parse({"path": path, name: "os:system"}).open()
    with pytest.raises(ConfigError, match="format expected one of"):
        DataSource.parse({"path": path, "format": "os:system"}).open()


def test_absolute_paths_mean_the_same_from_anywhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "contract.yaml").write_text("")
    source = DataSource(path="a.hdf5", rewards=Rewards.success, options={"contract": "contract.yaml", "dones": "terminated"})
    assert source.absolute() == DataSource(
        path=f"{tmp_path}/a.hdf5",
        rewards=Rewards.success,
        options={"contract": f"{tmp_path}/contract.yaml", "dones": "terminated"},
    )


def test_an_option_is_no_path_because_a_file_has_its_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train").write_text("")
    assert DataSource(path="a.hdf5", options={"filter_key": "train"}).absolute().options == {"filter_key": "train"}
