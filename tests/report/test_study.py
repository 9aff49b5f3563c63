"""A study's report: what its table says follows from the rows, and the page holds everything."""

import csv
import errno
import os
from pathlib import Path

import numpy as np
import pytest

from qtransformer.errors import StorageError
from qtransformer.report.study import ArmResult, build_study_report

Cells = list[dict[str, str]]


def row(seed: int, outcomes: str, split: str = "test") -> dict[str, str]:
    return {
        "seed": str(seed), "outcomes": outcomes, "split": split, "overrides": "algo=bc", "data_success": "0.2",
        "cell": f"{outcomes[:2]}{seed}",
    }  # fmt: skip


def curve(*values: float) -> Cells:
    points = [{"step": str(10 * i), "validation_success": str(value)} for i, value in enumerate(values, 1)]
    return [{"step": "5", "validation_success": ""}, *points]


def arm(name: str, rows: Cells, curves: list[Cells] | None = None, probes: dict[str, dict[str, str]] | None = None) -> ArmResult:
    return ArmResult.of(name, f"the {name}", "low, 8 episodes", rows, curves or [[] for _ in rows], probes or {}, 1.5)


@pytest.mark.parametrize(("seeds", "remark"), [(1, "1 seed"), (2, "2 seeds"), (3, "3 seeds"), (4, "clear of 0")])
def test_only_several_seeds_make_a_difference_clear(seeds: int, remark: str, tmp_path: Path) -> None:
    arms = [arm(name, [row(seed, marks * 40) for seed in range(seeds)]) for name, marks in (("q", "1"), ("bc", "0"), ("mc", "0"))]
    build_study_report("few", "?", arms, [("q", "bc"), ("bc", "mc")], tmp_path, tmp_path)
    table = (tmp_path / "few.md").read_text()
    assert f"| the q − the bc | +1.000 | [+1.000, +1.000] | {remark} |" in table
    assert ("[+0.000, +0.000] |  |" in table) == (seeds == 4)


def test_an_arm_is_read_from_its_rows() -> None:
    found = arm("q", [row(0, "1100"), row(3, "1111")], [curve(0.1, 0.6, 0.5), curve(0.2, 0.3, 0.4)])
    assert found.estimate.mean == 0.75
    assert {seed: list(outcome) for seed, outcome in found.outcomes.items()} == {0: [True, True, False, False], 3: [True] * 4}
    assert found.best_validation == pytest.approx(0.5)
    assert found.minutes == 1.5
    assert np.array_equal(found.curves[3][0], [10, 20, 30])


def test_a_curve_of_some_seeds_says_of_which(tmp_path: Path) -> None:
    rows = [row(seed, "1100") for seed in range(3)]
    some, all_of_them = arm("some", rows, [[], curve(0.1, 0.6), []]), arm("all", rows, [curve(0.1, 0.6)] * 3)
    assert (some.validated, all_of_them.validated, arm("none", rows).validated) == ("seed 1 of 3", "", "")
    build_study_report("part", "?", [some, all_of_them], [], tmp_path, tmp_path)
    assert "| 0.60 (seed 1 of 3) |" in (tmp_path / "part.md").read_text()


def test_a_report_says_what_was_found(tmp_path: Path) -> None:
    arms = [
        arm("q", [row(0, "1" * 40), row(1, "1" * 40)], [curve(0.5, 0.9), curve(0.7, 0.8)]),
        arm("bc", [row(1, "10" * 20)]),
        arm("rate_<b>", [row(0, "1" * 10 + "0" * 30, "validation")]),
    ]
    pairs = [("q", "bc"), ("q", "rate_<b>"), ("q", "none")]
    page = build_study_report("tiny", "Is <it> so?", arms, pairs, tmp_path, tmp_path / "runs")
    table = (tmp_path / "tiny.md").read_text()
    assert "| the q | 2 | 1.000 | [0.954, 1.000] | 1.00 1.00 | 0.85 | 1.5 | 0.200 |" in table
    assert "| the bc | 1 seed | 0.500 |" in table
    assert "the rate_<b> (validation)" in table
    assert "| the q − the bc | +0.500 |" in table, "over the seed that both have"
    assert "clear of 0" not in table
    assert table.count("] | 1 seed |") == 2
    with (tmp_path / "tiny.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["name"], r["seeds"], r["success"]) for r in rows] == [
        ("q", "2", "1.0000"), ("bc", "1", "0.5000"), ("rate_<b>", "1", "0.2500"),
    ]  # fmt: skip
    text = page.read_text()
    assert "Is &lt;it&gt; so?" in text
    assert "<b>" not in text.split("<style>")[0] + text.split("</style>")[1]
    assert text.count("<svg") == 2
    for name in ("tiny_success.png", "tiny_curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_files_that_others_read_are_replaced_and_never_half_written(tmp_path: Path) -> None:
    """They are committed, and several studies may be running: a second name shows whether a file was written into."""
    names = [f"tiny{end}" for end in (".md", ".csv", "_success.png", "_curves.png", ".html")]
    build_study_report("tiny", "?", [arm("q", [row(0, "10")], [curve(0.1)])], [], tmp_path, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / f"old_{name}").hardlink_to(tmp_path / name)
    build_study_report("tiny", "!", [arm("bc", [row(0, "11")], [curve(0.9)])], [], tmp_path, tmp_path)
    for name in names:
        assert (tmp_path / f"old_{name}").read_bytes() == before[name] != (tmp_path / name).read_bytes()


def test_a_table_that_finds_no_room_says_which_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    arms = [arm("q", [row(0, "10")]), arm("bc", [row(0, "01")])]
    with pytest.raises(StorageError, match=r"cannot write .*full.*: the disk is full"):
        build_study_report("full", "?", arms, [("q", "bc")], tmp_path, tmp_path)


@pytest.mark.parametrize("count", [1, 8, 9, 13])
def test_any_number_of_arms_is_drawn(count: int, tmp_path: Path) -> None:
    arms = [arm(f"a{i}", [row(0, "10")], [curve(0.1, 0.2)]) for i in range(count)]
    assert "a0" in build_study_report("many", "?", arms, [], tmp_path, tmp_path).read_text()


def test_seeds_that_were_validated_at_other_steps_share_what_they_have(tmp_path: Path) -> None:
    short = arm("q", [row(0, "10"), row(1, "11")], [curve(0.1, 0.2, 0.3), curve(0.4)])
    assert build_study_report("tiny", "?", [short], [], tmp_path, tmp_path).exists()


def test_a_report_says_what_features_know_where_they_were_probed(tmp_path: Path) -> None:
    probes = {
        "100": {"trained": "0.3000", "untrained": "0.1000", "own": "-0.2000"},
        "101": {"trained": "0.4000", "untrained": "0.1200", "own": "-0.1000"},
    }
    arms = [arm("q", [row(0, "10"), row(1, "10"), row(2, "10")], probes=probes), arm("bc", [row(0, "01")], probes=probes)]
    page = build_study_report("probed", "?", arms, [], tmp_path, tmp_path)
    table = (tmp_path / "probed.md").read_text()
    assert "| the q | 2 | 0.350 | 0.30 0.40 | 0.110 | -0.150 |" in table, "two of its three seeds were probed"
    assert table.count("| the bc |") == 1, "it was not probed"
    assert "Frozen features" in page.read_text()
    build_study_report("probed", "?", arms[1:], [], tmp_path, tmp_path)
    assert "Frozen features" not in page.read_text() + (tmp_path / "probed.md").read_text()
