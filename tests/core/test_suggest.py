from qtransformer.suggest import suggest


def test_what_is_near_is_suggested_alone() -> None:
    assert suggest("stpes", ["seed", "steps"]) == "did you mean steps?"
    assert suggest("learning_rte", ["steps", "optim.learning_rate"]) == "did you mean optim.learning_rate?"


def test_where_nothing_is_near_the_names_are_told_or_what_the_caller_says() -> None:
    assert suggest("x", ["seed", "steps"]) == "there are: seed, steps"
    assert suggest("x", []) == "there are: none"
    assert suggest("x", ["seed", "steps"], otherwise="--help lists them") == "--help lists them"
