"""One value far off all others is told, wherever training would take its range from it; ordinary data are not."""

import warnings
from collections.abc import Callable

import h5py
import numpy as np
import pytest

from qtransformer_datasets import EpisodeDataset, inspect_dataset, open_episodes, verify
from qtransformer_datasets.curation.survey import survey
from qtransformer_datasets.episodes.wild_values import KEPT, WildValue, WildValues


def found(values: np.ndarray, length: int = 50) -> list[WildValue]:
    """In one dimension, in episodes of that length."""
    wild, rows = WildValues(["x"]), np.asarray(values)[:, None]
    for number, start in enumerate(range(0, len(rows), length)):
        wild.include_episode(rows[start : start + length], number)
    return wild.found()


def ordinary(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What robots log."""
    episodes, at = np.arange(count) // 50, np.arange(count) % 50
    closed = (at > 30).astype(float)
    return {
        "noise": rng.normal(size=count),
        "a joint": np.cumsum(rng.normal(0, 0.01, count)),
        "uniform": rng.uniform(-1, 1, count),
        "constant": np.full(count, 0.3),
        "a gripper": 0.04 * closed,
        "a gripper that is measured": 0.04 * closed + rng.normal(0, 1e-6, count),
        "a gripper that moves once": 0.04 * (np.arange(count) == count // 2),
        "a gripper that moves once in noise": 0.04 * (np.arange(count) == count // 2) + rng.normal(0, 1e-7, count),
        "the end of episodes": (at == 49).astype(float),
        "the end of episodes in noise": (at == 49) + rng.normal(0, 1e-4, count),
        "the one success": (np.arange(count) == count - 1).astype(float),
        "sparse moves": rng.normal(size=count) * (rng.random(count) < 0.01),
        "contact forces in noise": rng.normal(0, 0.01, count) + 50 * rng.random(count) * (at > 46),
        "heavy tails": rng.standard_t(2, count),
        "log-normal": rng.lognormal(0, 2, count),
        "a counter": np.arange(count, dtype=float),
        "an episode apart": rng.normal(size=count) + 1e4 * (episodes == 1),
        "three positions": rng.choice([-1.0, 0.0, 1.0], count),
    }


@pytest.mark.parametrize("count", [100, 3000, 40_000])
@pytest.mark.parametrize("seed", range(5))
def test_ordinary_data_raise_no_alarm(count, seed) -> None:
    told = {name: found(values) for name, values in ordinary(count, np.random.default_rng(seed)).items()}
    assert {name: wild for name, wild in told.items() if wild} == {}


@pytest.mark.parametrize("value", [1e4, -999.0, 1e6, 3e38])
@pytest.mark.parametrize("count", [42, 300, 40_000])
def test_one_wild_value_is_found_and_located(value, count) -> None:
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=count), rng.uniform(-1, 1, count), 0.04 * (np.arange(count) % 50 > 30)):
        values[37] = value
        [wild] = found(values, length=30)
        assert (wild.name, wild.value, wild.episode, wild.step, wild.more) == ("x", value, 1, 7, 0)
        others = np.delete(values, 37)
        assert (wild.low, wild.high) == (others.min(), others.max())


def test_several_are_counted_and_numbers_that_are_not_finite_passed_over() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    values[[100, 2000, 4000]], values[[7, 8]] = [1e5, -1e6, 1e5], [np.nan, np.inf]
    [wild] = found(values)
    assert (wild.value, wild.episode, wild.step, wild.more) == (-1e6, 40, 0, 2)


def test_memory_does_not_grow_with_the_data() -> None:
    wild = WildValues(["x", "y"])
    for number in range(20):
        wild.include_episode(np.random.default_rng(number).normal(size=(20_000, 2)), number)
    assert len(wild._values) == len(wild._places) == 2 * KEPT


@pytest.fixture
def with_glitch(write_file, make_episode) -> Callable[[float], str]:
    def write(value: float) -> str:
        path = write_file([make_episode(20, seed) for seed in range(4)])
        with h5py.File(path, "r+") as file:
            file["data/demo_2/obs/proprio"][7, 1] = value
        return str(path)

    return write


def test_wild_proprioception_is_a_problem_to_validate_and_a_warning_in_training(with_glitch) -> None:
    path = with_glitch(1e6)
    [problem] = verify(path).problems
    assert f"{path}, demo_2, step 7: proprio 'y' expected near its other values, from -" in problem
    assert "found 1e+06; normalisation takes its spread from that" in problem
    assert problem in inspect_dataset(path)
    assert survey(open_episodes(path)).problems == [], "no obstacle to `data split`"
    for cache in ("never", "always", "always"):
        with pytest.warns(UserWarning, match="demo_2") as told:
            dataset = EpisodeDataset([str(path), str(path)], cache=cache)
        assert [str(warning.message) for warning in told] == [problem.replace("1e+06;", "1e+06 (and 1 more such values);")]
    assert dataset.num_episodes == 8


def test_a_source_without_a_file_is_named_by_its_kind(make_source, make_episode) -> None:
    episodes = [make_episode(20, seed) for seed in range(4)]
    episodes[3].proprio[0, 2] = -1e5
    with pytest.warns(UserWarning, match=r"ListSource, episode 1, step 0: proprio 'z' .*found -1e\+05;"):
        EpisodeDataset([make_source(episodes[:2]), make_source(episodes[2:])])


def test_a_final_observation_that_was_lost_counts_once(make_source, make_episode) -> None:
    """Its row repeats the last one: a glitch there would look like two."""
    episodes = [make_episode(20, seed, has_final_observation=False) for seed in range(4)]
    episodes[1].proprio[-2:, 0] = 1e6
    with pytest.warns(UserWarning, match=r"episode 1, step 19: .*found 1e\+06;"):
        EpisodeDataset(make_source(episodes))


def test_training_on_ordinary_data_is_quiet(make_source, make_episode) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EpisodeDataset(make_source([make_episode(20, seed) for seed in range(4)]))
