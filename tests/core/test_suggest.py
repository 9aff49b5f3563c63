import pytest

from qtransformer.cli.compose import setting_types
from qtransformer.cli.settings import TrainSettings
from qtransformer.suggest import ALSO_CALLED, suggest


def test_what_is_near_is_suggested_alone() -> None:
    assert suggest("stpes", ["seed", "steps"]) == "did you mean steps?"
    assert suggest("learning_rte", ["steps", "optim.learning_rate"]) == "did you mean optim.learning_rate?"


def test_where_nothing_is_near_the_names_are_told_or_what_the_caller_says() -> None:
    assert suggest("x", ["seed", "steps"]) == "there are: seed, steps"
    assert suggest("x", []) == "there are: none"
    assert suggest("x", ["seed", "steps"], otherwise="--help lists them") == "--help lists them"


@pytest.mark.parametrize("word", ["lr", "optim.lr", "model.lr"])
def test_a_setting_is_found_by_the_name_it_has_elsewhere(word: str) -> None:
    assert suggest(word, ["steps", "optim.mirror", "optim.learning_rate"]) == "did you mean optim.learning_rate?"


def test_every_name_from_elsewhere_means_a_setting_of_train() -> None:
    ours = {name.rsplit(".", 1)[-1] for name in setting_types(TrainSettings)}
    assert set(ALSO_CALLED.values()) <= ours
    assert not set(ALSO_CALLED) & ours
