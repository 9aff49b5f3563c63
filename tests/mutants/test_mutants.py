"""The defects of `make mutants` follow the code they damage; killing them is left to it."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MUTANTS = runpy.run_path(str(Path(__file__).with_name("run.py")))


@pytest.mark.parametrize("mutant", [*MUTANTS["PUBLIC"], *MUTANTS["OURS"]], ids=lambda mutant: mutant.defect)
def test_a_defect_can_be_planted_in_one_place(mutant) -> None:
    assert (ROOT / "qtransformer" / mutant.file).read_text().count(mutant.old) == 1
    assert (ROOT / "tests" / "core" / mutant.tests.split()[0]).exists()
