"""Verdicts on a small run, and the choice among them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qtransformer.config import ModelConfig, TrainConfig
from qtransformer.errors import ConfigError, DatasetError, SpecMismatchError
from qtransformer.log_evaluation import CheckpointScores, CriticConfig, LogJudge, best, judge_all, selection_score
from qtransformer.log_evaluation.behaviour import critic_config
from qtransformer.log_evaluation.judging import checkpoints_of
from qtransformer.log_evaluation.replay import replay
from qtransformer.trainer import Trainer

SMALL = CriticConfig(steps=2, fqe_steps=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_config, make_dataset) -> Path:
    """Two checkpoints of Q-learning."""
    return Trainer(make_config(), make_dataset(), tmp_path_factory.mktemp("run"), progress=False).fit().directory


def verdict(step: int, **scores: float) -> CheckpointScores:
    return CheckpointScores(checkpoint=Path(f"checkpoints/step_{step:07d}"), algo="q", scores=scores, td_error_per_dimension=(0.1,))


def test_every_checkpoint_gets_every_score(run: Path, make_dataset) -> None:
    done = []
    verdicts = judge_all(LogJudge(make_dataset(), "held.hdf5", SMALL), checkpoints_of(run), "cpu", done.append)
    assert [v.checkpoint.name for v in verdicts] == ["step_0000004", "step_0000008"]
    assert done == ["critic step"] * 2 + ["checkpoint"] * 2
    for v in verdicts:
        assert all(np.isfinite(x) for x in v.scores.values()), v.scores
        assert len(v.td_error_per_dimension) == 3
        assert {"likelihood_gap", "fqe", "bvft", "td_error", "opc", "soft_opc", "auc_episode"} <= v.scores.keys()
    assert verdicts[0].scores["td_error"] != verdicts[1].scores["td_error"]


def test_verdicts_do_not_depend_on_their_company(run: Path, make_dataset) -> None:
    together = judge_all(LogJudge(make_dataset(), "held.hdf5", SMALL), checkpoints_of(run), "cpu")
    alone = judge_all(LogJudge(make_dataset(), "held.hdf5", SMALL), checkpoints_of(run)[1:], "cpu")
    names = set(together[1].scores) - {"bvft"}
    assert {k: alone[0].scores[k] for k in names} == pytest.approx({k: together[1].scores[k] for k in names})


def test_the_critics_range_holds_all_values_whichever_checkpoint_is_first(tmp_path, make_config, make_dataset) -> None:
    """A training widens its range as it goes, and its oldest checkpoint comes first."""
    configs = [make_config(value={"v_min": 0.0, "v_max": v_max}, steps=2) for v_max in (1.0, 4.0)]
    runs = [Trainer(config, make_dataset(), tmp_path / f"{config.value.v_max}", progress=False) for config in configs]
    narrow, wide = (run.fit().best for run in runs)
    either, other = (judge_all(LogJudge(make_dataset(), "log", SMALL), order, "cpu") for order in ([narrow, wide], [wide, narrow]))
    for one, same in zip(either, reversed(other), strict=True):
        assert one.checkpoint == same.checkpoint
        assert one.scores == pytest.approx(same.scores)


def test_the_critic_remembers_what_policies_remember() -> None:
    like = TrainConfig(model=ModelConfig(remember="gripper_closed", history=3))
    critic = critic_config(like, SMALL, -1.0, 2.0)
    assert (critic.model.remember, critic.model.history) == ("gripper_closed", 3)
    assert (critic.value.v_min, critic.value.v_max) == (-1.0, 2.0)


def test_the_tournament_leaves_out_steps_that_lost_their_final_observation(run: Path, make_dataset, make_episode) -> None:
    """What would be bootstrapped there is the frame before."""
    lost = [replace(make_episode(4, i, end="truncated"), has_final_observation=False) for i in range(6)]
    judge = LogJudge(make_dataset(lost), "held.hdf5", replace(SMALL, fqe_steps=0))
    judge_all(judge, checkpoints_of(run), "cpu")
    assert [len(rows) for pair in judge._values.values() for rows in pair] == [6 * 3] * 4


def test_targets_are_judged_by_the_worst_reward_of_the_log(run: Path, make_dataset, make_episode, monkeypatch) -> None:
    plain = [make_episode(4, i, end="truncated") for i in range(6)]
    data, asked = make_dataset([replace(e, rewards=e.rewards - np.float32(0.25)) for e in plain]), []

    def listening(policy, episodes, worst_reward):
        asked.append(worst_reward)
        return replay(policy, episodes, worst_reward)

    monkeypatch.setattr("qtransformer.log_evaluation.judging.replay", listening)
    judge_all(LogJudge(data, "held.hdf5", replace(SMALL, fqe_steps=0)), checkpoints_of(run), "cpu")
    assert asked == [-0.25] * 2


def test_without_fitted_q_evaluation_no_critic_is_learned(run: Path, make_dataset) -> None:
    done = []
    judge = LogJudge(make_dataset(), "held.hdf5", replace(SMALL, fqe_steps=0))
    [found] = judge_all(judge, checkpoints_of(run)[1:], "cpu", done.append)
    assert "fqe" not in found.scores
    assert done == ["checkpoint"]


@pytest.mark.parametrize("success", [True, False])
def test_a_log_of_one_kind_of_outcome_is_refused(success: bool, make_dataset, make_episode) -> None:
    data = make_dataset([make_episode(3, i, success=success) for i in range(4)])
    with pytest.raises(DatasetError, match=f"held.hdf5: .* found {'successes' if success else 'failures'} alone"):
        LogJudge(data, "held.hdf5")


def test_outcomes_are_known_without_reading_images(make_dataset, monkeypatch) -> None:
    data = make_dataset()
    monkeypatch.setattr(data, "episodes", lambda: pytest.fail("read"))
    LogJudge(data, "held.hdf5")


def test_another_robots_log_is_refused_naming_both(run: Path, make_dataset, make_episode) -> None:
    data = make_dataset()
    data.action_spec = replace(data.action_spec, low=(-0.2, 0.0, -0.2))
    with pytest.raises(SpecMismatchError, match=r"step_0000004 on held.hdf5 does not fit: action lower limits: .*-0.1.*-0.2"):
        judge_all(LogJudge(data, "held.hdf5", SMALL), checkpoints_of(run), "cpu")


def test_returns_under_another_discount_than_the_policys_are_refused(run: Path, make_dataset) -> None:
    other = make_dataset().with_discount(0.5)
    for judge in (LogJudge(other, "held.hdf5", SMALL), LogJudge(make_dataset(), "held.hdf5", SMALL, critic_data=other)):
        with pytest.raises(ConfigError, match=r"policy's discount 0\.98, found 0\.5"):
            judge_all(judge, checkpoints_of(run), "cpu")


def test_checkpoints_of_two_discounts_are_not_judged_together(run: Path, tmp_path, make_config, make_dataset) -> None:
    config = make_config(targets={"discount": 0.5}, steps=2)
    other = Trainer(config, make_dataset().with_discount(0.5), tmp_path, progress=False).fit().best
    with pytest.raises(ConfigError, match=r"step_0000002 on held.hdf5: .*policy's discount 0\.5, found 0\.98.*judge .* apart"):
        judge_all(LogJudge(make_dataset(), "held.hdf5", SMALL), [*checkpoints_of(run), other], "cpu")


def test_a_critic_needs_episodes_of_the_same_robot(make_dataset) -> None:
    other = make_dataset()
    other.action_spec = replace(other.action_spec, low=(-0.2, 0.0, -0.2))
    with pytest.raises(SpecMismatchError, match=r"critic_data beside held.hdf5 does not fit: action lower limits"):
        LogJudge(make_dataset(), "held.hdf5", SMALL, other)


def test_the_score_that_chooses_is_one_that_all_have() -> None:
    both = [verdict(1, likelihood_gap=0.1, match_gap=0.3), verdict(2, likelihood_gap=0.2, match_gap=0.1)]
    assert selection_score(both) == "likelihood_gap"
    assert selection_score([*both, verdict(3, likelihood_gap=np.nan, match_gap=0.2)]) == "match_gap"


def test_the_best_is_the_highest_or_for_errors_the_lowest_and_the_later_of_equals() -> None:
    verdicts = [verdict(1, fqe=0.5, td_error=0.1), verdict(2, fqe=0.7, td_error=0.2), verdict(3, fqe=0.7, td_error=0.3)]
    assert best(verdicts, "fqe") is verdicts[2]
    assert best(verdicts, "td_error") is verdicts[0]


def test_what_does_not_exist_is_null_in_json() -> None:
    assert verdict(1, fqe=np.nan, opc=0.5).to_dict()["scores"] == {"fqe": None, "opc": 0.5}


def test_a_checkpoint_stands_alone_and_a_run_for_all_of_its_checkpoints(run: Path) -> None:
    assert [p.name for p in checkpoints_of(run)] == ["step_0000004", "step_0000008"]
    assert checkpoints_of(run / "checkpoints" / "step_0000004") == [run / "checkpoints" / "step_0000004"]
