"""A cell is what its result follows from, no more and no less."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qtransformer.cli.studies import cells, grids, results
from qtransformer.cli.studies.cells import WITHOUT_CONSEQUENCE, Cell, cells_of, flat
from qtransformer.cli.studies.grids import STUDIES
from tests.cli.studies.tiny_study import CELL, DATA, SMALL, Q


def test_a_cell_is_what_its_result_follows_from() -> None:
    same = [
        replace(CELL, overrides=(*SMALL, "threads=2", "save_every=7", "keep_checkpoints=2", "device=cuda")),
        replace(CELL, overrides=tuple(reversed(SMALL))),
        replace(CELL, overrides=(*SMALL, "algo=q")),  # the default, said
    ]
    trained_otherwise = [
        replace(CELL, seed=1),
        replace(CELL, data=replace(DATA, episodes=7)),
        replace(CELL, data=replace(DATA, recipe="demo")),
        replace(CELL, data=replace(DATA, collect=())),
        replace(CELL, data=replace(DATA, reading=("reward_noise=0.1",))),
        replace(CELL, data=replace(DATA, reading=("reward_noise=0.2",))),
    ]
    judged_otherwise = [replace(CELL, split="validation"), replace(CELL, episodes=3), replace(CELL, first_scene=101)]
    different = [CELL, *trained_otherwise, *judged_otherwise]
    assert {cell.identity for cell in same} == {CELL.identity}
    assert len({cell.identity for cell in different}) == len(different)
    assert {cell.run_name for cell in [*same, *judged_otherwise]} == {CELL.run_name}
    assert len({cell.run_name for cell in [CELL, *trained_otherwise]}) == 1 + len(trained_otherwise)


def test_every_setting_of_a_training_tells_cells_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    config, identities = CELL.config, {CELL.identity}
    for name, value in flat(config).items():
        group, _, key = name.rpartition(".")
        changed = json.loads(json.dumps(config))
        (changed[group] if group else changed)[key] = [value, "changed"]
        monkeypatch.setattr(Cell, "config", changed)
        assert (CELL.identity in identities) == (name in WITHOUT_CONSEQUENCE), name
        identities.add(CELL.identity)


def test_names_of_study_and_arm_do_not_tell_cells_apart() -> None:
    renamed = replace(Q, name="other", label="another label", seeds=5)
    assert [c.identity for c in cells_of(Q, [0, 1], 2, 100)] == [c.identity for c in cells_of(renamed, [0, 1], 2, 100)]
    ours = {c.identity for c in cells_of(grids.ABLATIONS.arms[0], None, 300, 0)}
    assert ours <= {c.identity for c in cells_of(grids.BASELINES.arms[0], None, 300, 0)}


def test_a_setting_added_later_leaves_cells_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "ADDED_LATER", {"optim.mirror": [], "cloning_steps": 0})
    before = {k: v for k, v in CELL.config.items() if k != "cloning_steps"}
    del before["optim"]["mirror"]
    now = CELL.identity
    assert replace(CELL, overrides=(*SMALL, "optim.mirror=[dx]")).identity != now
    monkeypatch.setattr(cells, "ADDED_LATER", {})
    monkeypatch.setattr(Cell, "config", before)
    assert CELL.identity == now, "as it was when neither setting was there"


def test_what_an_algorithm_does_not_read_leaves_its_cells_as_they_were() -> None:
    cloned, regressed = (replace(CELL, overrides=(*SMALL, f"algo={algo}")) for algo in ("bc", "mc"))

    def changed(cell: Cell, setting: str) -> bool:
        return replace(cell, overrides=(*cell.overrides, "targets.behavior_mask=0.1", setting)).identity != (
            replace(cell, overrides=(*cell.overrides, "targets.behavior_mask=0.1")).identity
        )

    assert [changed(cell, "targets.proposals=8") for cell in (cloned, regressed, CELL)] == [False, True, True]
    assert [changed(cell, "targets.bootstrap_proposals=2") for cell in (cloned, regressed, CELL)] == [False, False, True]


def test_committed_cells_are_what_their_overrides_say() -> None:
    known = results.read_cells(Path(__file__).parents[3] / "docs" / "studies")
    assert known
    arms = {str(arm.data): arm.data for study in STUDIES.values() for arm in study.arms}
    for row in known.values():
        data, _, seed = row["data"].rpartition(", seed ")
        scenes = (row["split"], int(row["episodes"]), int(row["first_scene"]))
        cell = Cell(arms[data], tuple(row["overrides"].split()), int(seed), *scenes)
        assert cell.identity == row["cell"]
        assert row["overrides"] in row["command"]


def test_what_a_training_is_told_says_all_that_differs_from_the_defaults() -> None:
    cell = next(cells_of(grids.ABLATIONS.arms[0], [0], 300, 0))
    assert replace(cell, overrides=tuple(cell.differences.split())).identity == cell.identity, "a preset may change; this does not"
