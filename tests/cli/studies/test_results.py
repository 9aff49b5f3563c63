"""Tables that many processes write into, and that a kill may leave torn."""

import subprocess
import sys
from pathlib import Path

import pytest

from qtransformer.cli.main import main
from qtransformer.cli.studies import results


def test_rows_of_many_writers_all_arrive(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    code = (
        "import sys; from pathlib import Path; from qtransformer.cli.studies.results import append, CURVE_FIELDS\n"
        f"for i in range(40): append(Path({str(path)!r}), CURVE_FIELDS, [dict(cell=sys.argv[1], step=i, q_start='a, \"b\"' * 200)])"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    curves = results.read_curves(tmp_path)
    assert {name: [int(row["step"]) for row in rows] for name, rows in curves.items()} == {name: list(range(40)) for name in "abc"}
    assert {row["q_start"] for rows in curves.values() for row in rows} == {'a, "b"' * 200}


def point(cell: str, step: int, q_start: str = "0.5") -> dict[str, object]:
    return {"cell": cell, "step": step, "q_start": q_start}


@pytest.mark.parametrize("torn", ["b,2", "b,2,,0.5,,,,0.1", "b,2,,0.5,,,", 'b,2,,"a, ', ""])
def test_a_line_cut_off_by_a_kill_is_passed_over_and_swallows_nothing(torn: str, tmp_path: Path) -> None:
    path = tmp_path / results.CURVES
    results.append(path, results.CURVE_FIELDS, [point("a", 1)])
    with path.open("a") as file:
        file.write(torn)
    assert list(results.read_curves(tmp_path)) == ["a"]
    results.append(path, results.CURVE_FIELDS, [point("c", 3)])
    assert list(results.read_curves(tmp_path)) == ["a", "c"]
    assert torn == "" or torn not in path.read_text()


def test_a_curve_told_twice_counts_once_and_is_in_order(tmp_path: Path) -> None:
    for rows in ([point("a", 2), point("a", 1)], [point("a", 2, "0.7")]):
        results.append(tmp_path / results.CURVES, results.CURVE_FIELDS, rows)
    assert [(row["step"], row["q_start"]) for row in results.read_curves(tmp_path)["a"]] == [("1", "0.5"), ("2", "0.7")]


def test_another_table_is_not_written_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cells.csv").write_text("cell,success\na,1\n")
    assert main(["study", "stitching", f"out={tmp_path}", "dry_run=true"]) == 1
    assert "expected the columns" in capsys.readouterr().err
