"""Resets give back what they take."""

import resource

import pytest

pytest.importorskip("pybullet")


@pytest.mark.parametrize("resets", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_resets_do_not_grow_memory(env, resets):
    for seed in range(60):  # meshes are read once each and kept; this loads most of them
        env.reset(seed=seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(resets):
        env.reset(seed=seed % 60)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 20, f"grew by {grown:.0f} MiB over {resets} resets"
