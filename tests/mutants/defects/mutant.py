"""A known defect, as a change of one place in the source."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    defect: str
    file: str
    """Below qtransformer/."""
    old: str
    new: str
    tests: str
    """Below tests/core/, and what pytest's -k keeps of it."""
