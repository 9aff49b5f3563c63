"""Overrides: groups and settings together, and a slip of the fingers answered with what was meant."""

import pytest

from qtransformer.cli.compose import UsageError, compose_settings, group_choices, refuse_split_braces
from qtransformer.cli.main import main
from qtransformer.config import Algo, Floor, TrainConfig, ValueKind
from qtransformer.errors import ConfigError

NEEDED = ["dataset=d.hdf5", "run=r"]


def train(*overrides: str) -> TrainConfig:
    return compose_settings("train", [*NEEDED, *overrides])


def test_groups_and_settings_work_together() -> None:
    config = train(
        "preset=demo", "value=mse", "value.num_bins=101", "model.history=2", "targets.floor=none", "optim.learning_rate=3e-4",
        "algo=bc",
    )  # fmt: skip
    assert (config.value.kind, config.value.num_bins) == (ValueKind.mse, 101)
    assert (config.model.history, config.targets.floor, config.algo) == (2, Floor.none, Algo.bc)
    assert config.optim.learning_rate == 3e-4


def test_order_of_overrides_does_not_matter() -> None:
    overrides = ["preset=demo", "value=c51", "steps=7", "value.sigma_ratio=0.5"]
    assert train(*overrides) == train(*reversed(overrides))


@pytest.mark.parametrize(
    ("verb", "said", "least"),
    [
        ("eval", "episodes=0", 1), ("eval", "seed=-1", 0), ("eval", "workers=-1", 0), ("eval", "critic_steps=0", 1),
        ("study", "episodes=0", 1), ("study", "workers=-1", 0), ("calibrate", "episodes=0", 1), ("ros-demo", "episodes=0", 1),
        ("demo", "eval_episodes=0", 1), ("demo", "workers=-2", 0),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_meant_are_refused(verb: str, said: str, least: int) -> None:
    needed = {"study": ["name=losses"], "calibrate": ["run=r"]}.get(verb, [])
    with pytest.raises(ConfigError, match=f"^{said} must be at least {least}; the default is .+$"):
        compose_settings(verb, [*needed, said])


@pytest.mark.parametrize("verb", ["eval", "study", "calibrate", "ros-demo", "demo"])
def test_defaults_can_be_meant(verb: str) -> None:
    compose_settings(verb, {"study": ["name=losses"], "calibrate": ["run=r"]}.get(verb, []))


@pytest.mark.parametrize("value", ["hl_gauss", "two_hot", "c51", "mse"])
def test_every_head_is_a_choice(value: str) -> None:
    assert train(f"value={value}").value.kind.value == value


def test_small_is_the_defaults() -> None:
    config = train("preset=small")
    assert {name: getattr(config, name) for name in TrainConfig.__slots__} == {
        name: getattr(TrainConfig(), name) for name in TrainConfig.__slots__
    }


def test_presets_compose() -> None:
    assert group_choices("preset") == ["base_60m", "demo", "grasp", "small"]
    assert train("preset=base_60m").model.history == 6


def test_paths_may_hold_any_character() -> None:
    path = "/tmp/a b(1),{it's}=x.hdf5"
    assert compose_settings("train", [f"dataset={path}", "run=r"]).dataset == path


@pytest.mark.parametrize("path", ["a${x}b", "${oc.env:HOME}", "a\\", "a\\'b", "C:\\dir\\x", "größe x=1,[y]", "a\\\\"])
def test_text_is_what_was_typed(path: str) -> None:
    assert compose_settings("train", ["dataset=d.hdf5", f"run={path}"]).run == path


@pytest.mark.parametrize(("verb", "said"), [("train", "run="), ("train", "dataset="), ("resume", "run="), ("collect", "out=")])
def test_what_an_unset_variable_leaves_empty_is_refused(verb: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"^{said} is empty"):
        compose_settings(verb, [said])


def test_datasets_may_be_listed() -> None:
    assert compose_settings("train", ["dataset=[a.hdf5,b.hdf5]", "run=r"]).dataset == ["a.hdf5", "b.hdf5"]


def test_environment_arguments_may_be_anything() -> None:
    kwargs = {"size": 32, "cameras": {"wrist": [8, 8]}}
    assert compose_settings("eval", ["env_kwargs={size: 32, cameras: {wrist: [8, 8]}}"]).env_kwargs == kwargs


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("dataste=x", "did you mean dataset?"),
        ("stepz=3", "did you mean steps?"),
        ("optim.learning_rat=1", "did you mean optim.learning_rate?"),
        ("learning_rate=1", "did you mean optim.learning_rate?"),
        ("targets.floor=lerned", "did you mean learned?"),
        ("algo=bcc", "did you mean bc?"),
        ("value=hl_gaus", "did you mean hl_gauss?"),
        ("preset=dmeo", "did you mean demo?"),
        ("value.kind=msee", "did you mean mse?"),
    ],
)
def test_a_typo_is_answered_with_what_was_meant(override: str, answer: str) -> None:
    with pytest.raises(UsageError, match=answer.replace("?", r"\?")):
        train(override)


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("steps=abc", "steps: expected an integer, found 'abc'"),
        ("steps=1.5", "steps: expected an integer, found '1.5'"),
        ("steps=null", "steps: expected an integer, found 'null'"),
        ("targets.discount=high", "targets.discount: expected a number, found 'high'"),
        ("bc_filter_success=maybe", "bc_filter_success: expected true or false, found 'maybe'"),
        ("seed=1,2", "one value at a time"),
        ("steps=[", "cannot be read"),
        ("steps", "not of the form key=value"),
        ("+steps=3", "has no setting"),
        ("optim=3", "has no setting"),
        ("dones=terminated", "it is an option of a dataset, and said there: dataset={path:...,dones:terminated}"),
        ("limits=[[0,1]]", "dataset={path:...,limits:[[0,1]]}"),
    ],
)
def test_a_wrong_value_is_answered_with_what_was_expected(override: str, answer: str) -> None:
    with pytest.raises(UsageError) as caught:
        train(override)
    assert answer in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(UsageError, match=r"train needs run=\.\.\."):
        compose_settings("train", ["dataset=d"])


def test_composing_twice_gives_the_same() -> None:
    assert train("steps=5") == train("steps=5")


@pytest.mark.parametrize(
    ("words", "answer"),
    [(["trian"], "did you mean train?"), (["data", "inspct"], "did you mean data inspect?"), (["train", "stepz=1"], "steps")],
)
def test_usage_errors_exit_with_2(words: list[str], answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert answer in printed.err
    assert printed.err.count("\n") == 1


def test_braces_that_the_shell_has_split_are_told_and_a_setting_said_twice_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "dataset=path:a.hdf5", "dataset=dones:terminated", "run=x"]) == 2
    assert "put it in quotes, 'dataset={path:a.hdf5,dones:terminated}'" in capsys.readouterr().err
    refuse_split_braces(["steps=1", "dataset={path:a,dones:x}", "steps=2", "run=a:b"])
