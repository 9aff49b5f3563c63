"""A study of three trainings that take a blink."""

from qtransformer.cli.studies.cells import Cell
from qtransformer.cli.studies.grids import Arm, Data, Study
from tests.cli.console import TINY

DATA = Data("expert", 3, ("image_size=16", "num_objects=1"))
SMALL = (*TINY[:-2], "steps=4", "log_every=2", "model.tokens_per_image=2")
Q = Arm("q", "Q-learning", SMALL, DATA, seeds=2)
BC = Arm("bc", "cloning", (*SMALL, "algo=bc", "bc_filter_success=false"), DATA, seeds=1)
TINY_STUDY = Study("tiny", "Is anything learned?", (Q, BC), (("q", "bc"),))
CELL = Cell(DATA, SMALL, 0, "test", 2, 100)
