"""The defects of `make mutants` follow the code they damage; killing them is left to it."""

from pathlib import Path

import pytest

from tests.mutants.defects.mutant import Mutant
from tests.mutants.defects.ours import OURS
from tests.mutants.defects.public import PUBLIC

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", [*PUBLIC, *OURS], ids=lambda mutant: mutant.defect)
def test_a_defect_can_be_planted_in_one_place(mutant: Mutant) -> None:
    assert (ROOT / "qtransformer" / mutant.file).read_text().count(mutant.old) == 1
    assert (ROOT / "tests" / "core" / mutant.tests.split()[0]).exists()
