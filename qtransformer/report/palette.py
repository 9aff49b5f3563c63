"""One colour per method, the same in every plot, table and video; told apart by colour-blind eyes on light and dark pages."""

from typing import NamedTuple

OURS = "qtransformer"
DATA = "data"

METHOD_COLORS = {
    OURS: "#2f6fe0",
    "mc": "#c2417f",
    "bc": "#d9822b",
    "expert": "#159a78",
    DATA: "#8e6bbf",
    "random": "#8b929c",
}
"""In the order in which methods are listed."""
OTHER_COLORS = ("#b0892c", "#4aa5c4", "#9a5b4f", "#6c8f3d")
LINE_COLORS = ("#2f6fe0", "#d9822b", "#159a78", "#c2417f", "#8e6bbf")
"""For curves that are not methods."""
GOOD, BAD = "#159a78", "#d1493f"


def method_color(name: str) -> str:
    """A method's colour; an unknown method keeps the same one within and across pages."""
    return METHOD_COLORS.get(name) or OTHER_COLORS[sum(name.encode()) % len(OTHER_COLORS)]


def rank(name: str) -> tuple[int, str]:
    """Sorting key: ours first, then baselines as listed, then the rest by name."""
    known = list(METHOD_COLORS)
    return (known.index(name) if name in known else len(known)), name


class Theme(NamedTuple):
    """Colours of a plot that depend on the page it stands on."""

    ink: str
    muted: str
    grid: str
    page: str


PAPER = Theme("#1d2126", "#6a717b", "#e4e6ea", "#ffffff")
"""For PNG files."""
SCREEN = Theme("#010203", "#010204", "#010205", "#010206")
"""Stand-ins that `plots.to_svg` turns into the page's own variables, so that plots follow its light or dark mode."""
