"""What the doctor finds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the report."""

    name: str
    state: str
    remedy: str = ""
    """What to do about it; empty where all is well."""
    fatal: bool = False
    """Nothing works until it is mended."""
