from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.core.trainings import same, weights


def test_the_target_network_follows_by_its_rate(make_config, make_learner, make_batch) -> None:
    learner = make_learner(make_config(targets={"target_rate": 0.25}))
    assert learner.target_network is not None
    before = weights(learner.target_network)
    assert same(before, weights(learner.network)), "both start alike"
    learner.update(make_batch(), 0)
    assert not same(before, weights(learner.network))
    for name, value in learner.target_network.state_dict().items():
        torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * learner.network.state_dict()[name])
    assert not any(p.requires_grad for p in learner.target_network.parameters())
    hard = make_learner(make_config(targets={"target_rate": 1.0}))
    hard.update(make_batch(), 0)
    assert hard.target_network is not None
    assert same(weights(hard.target_network), weights(hard.network))


@pytest.mark.parametrize(("own", "expected"), [(None, 3), (2, 2)])
def test_the_bootstrap_may_ask_for_fewer_proposals(
    own: int | None, expected: int, make_config, make_learner, make_batch, monkeypatch
) -> None:
    config = make_config(targets={"proposals": 3, "bootstrap_proposals": own, "behavior_mask": 0.01})
    learner, asked = make_learner(config), []
    propose = learner.target_network.propose
    monkeypatch.setattr(learner.target_network, "propose", lambda x, n, *rest: (asked.append(n), propose(x, n, *rest))[1])
    learner.update(make_batch(size=4), 0)
    assert asked == [expected]


@pytest.mark.parametrize("backup", ["n_step", "bellman"])
@pytest.mark.parametrize("history", [1, 2])
def test_it_encodes_each_frame_that_targets_ask_for_once(
    backup, history, make_config, make_learner, make_batch, monkeypatch
) -> None:
    learner = make_learner(make_config(targets={"backup": backup}, model={"history": history}))
    batch, seen = make_batch(lead=learner.lead, lookahead=learner.lookahead), Counter()
    encode = learner.target_network.encode_frames

    def counted(images: dict[str, Tensor], proprio: Tensor, *rest: Tensor) -> Tensor:
        seen.update(tuple(row) for row in proprio.flatten(0, 1).tolist())
        return encode(images, proprio, *rest)

    monkeypatch.setattr(learner.target_network, "encode_frames", counted)
    learner.evaluate_batch(batch)  # as an update sees it, but for augmentation
    logged = Counter(tuple(row) for row in batch.proprio.flatten(0, 1).tolist())
    assert seen
    assert all(seen[frame] <= logged[frame] for frame in seen), (
        "frames that are the same in the log count as often as they are there"
    )
    if backup == "bellman":
        assert seen.keys() >= {tuple(row) for row in batch.of_steps(batch.proprio).tolist()}


def test_a_batch_that_nothing_is_bootstrapped_in_teaches_its_outcomes(make_config, make_learner, make_batch) -> None:
    learner, batch = make_learner(make_config(targets={"floor": "none"})), make_batch()
    ended = replace(batch, terminated=torch.ones_like(batch.terminated))
    told = learner.evaluate_batch(ended)
    assert bool(told.valid.any())
    rewards = ended.of_steps(ended.rewards)[:, None].expand_as(told.target)
    torch.testing.assert_close(told.target[told.valid], rewards[told.valid], atol=1e-4, rtol=0)
