import pytest

from qtransformer.config import OptimConfig
from qtransformer.optimizer import learning_rate


def test_the_learning_rate_warms_up_and_ends_at_a_tenth() -> None:
    optim = OptimConfig(learning_rate=1.0, warmup_steps=4)
    assert [learning_rate(optim, s, 14) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate(optim, 4, 14) == pytest.approx(1.0)
    assert learning_rate(optim, 9, 14) == pytest.approx(0.55)
    assert learning_rate(optim, 14, 14) == pytest.approx(0.1)
    assert learning_rate(optim, 99, 14) == pytest.approx(0.1)


def test_biases_norms_and_embeddings_are_not_decayed(make_config, make_learner) -> None:
    learner = make_learner(make_config())
    names = {id(p): n for n, p in learner.network.named_parameters()}
    decayed, free = ({names[id(p)] for p in group["params"]} for group in learner.optimizer.param_groups)
    assert decayed | free == set(names.values())
    assert all(n.endswith("weight") and "norm" not in n for n in decayed)
    assert {"slot_embedding", "age_embedding", "action_embedding", "q_head.bin_embedding"} <= free
