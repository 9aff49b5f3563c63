"""Which objects appear where."""

import numpy as np
import pytest

pytest.importorskip("pybullet")
from qtransformer_sim.objects import SPLITS, is_sound, load_mesh, object_numbers
from qtransformer_sim.tasks import scatter

BOX = np.array([[x, y, z] for x in (0, 0.03) for y in (0, 0.03) for z in (0, 0.03)])


def test_splits_are_disjoint_and_complete():
    numbers = [number for split in SPLITS for number in object_numbers(split)]
    assert sorted(numbers) == list(range(1000))
    assert object_numbers("test") == list(range(0, 1000, 10))


def test_the_known_broken_mesh_is_found_by_the_check():
    assert load_mesh(168) is None


@pytest.mark.parametrize(
    ("vertices", "faces", "parts"),
    [
        (np.where(BOX[3, 1] == BOX, np.nan, BOX), 12, 1),
        (np.zeros((0, 3)), 0, 1),
        (BOX, 0, 1),
        (BOX * [1, 1, 0], 12, 1),
        (BOX * 10, 12, 1),
        (BOX, 12, 200),
    ],
    ids=["nan", "empty", "no faces", "flat", "huge", "shattered"],
)
def test_broken_meshes_are_refused(vertices, faces, parts):
    assert is_sound(BOX, 12, 1)
    assert not is_sound(vertices, faces, parts)


def test_most_objects_are_sound():
    assert np.mean([load_mesh(number) is not None for number in range(0, 1000, 10)]) > 0.85


def test_episodes_draw_fresh_sound_objects_of_their_split(env):
    drawn = []
    for seed in range(8):
        env.reset(seed=seed)
        drawn.append(tuple(item.number for item in env.task.objects))
        positions = np.array([item.position(env.bullet) for item in env.task.objects])
        assert np.isfinite(positions).all()
        assert env.task.within_reach(env.task.objects[0])
    assert len(set(drawn)) == 8
    assert {number for numbers in drawn for number in numbers} <= set(object_numbers("train"))


@pytest.mark.parametrize("count", [1, 3, 12])
def test_scatter_keeps_distance_where_there_is_room(count):
    points = scatter(count, 0.1, 0.05, np.random.default_rng(0))
    assert points.shape == (count, 2)
    assert np.abs(points).max() <= 0.1
    if count == 3:
        assert min(np.linalg.norm(a - b) for i, a in enumerate(points) for b in points[:i]) >= 0.05
