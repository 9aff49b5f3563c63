"""What a run looks like: `film` records episodes with the policy's reasons, `build_report` gathers everything on one page.

    film(env, policy, seeds=range(4), directory=run / "videos", label="Q-Transformer")
    build_report(run)  # writes run/report.html and run/plots/*.png

Both only read what a run left behind; they import no simulator, no dataset format and no configuration framework.
"""

from qtransformer.report.page import build_report
from qtransformer.report.video import film

__all__ = ["build_report", "film"]
