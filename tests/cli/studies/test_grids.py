"""Every study composes."""

from qtransformer.cli.studies.cells import cells_of
from qtransformer.cli.studies.grids import STUDIES


def test_every_arm_of_every_study_composes_and_none_is_there_twice() -> None:
    for study in STUDIES.values():
        identities = [cell.identity for arm in study.arms for cell in cells_of(arm, [0], 300, 0)]
        assert len(identities) == len(set(identities)), study.name
        assert len({arm.name for arm in study.arms}) == len(study.arms)
        assert {name for pair in study.pairs for name in pair} <= {arm.name for arm in study.arms}
