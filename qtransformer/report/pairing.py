"""Two actors on the same seeds: who wins where only one of them succeeds."""

import math
from dataclasses import dataclass

from qtransformer.evaluate import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """Outcomes of the seeds that both actors played."""

    wins: int
    """Only the first succeeded."""
    losses: int
    """Only the second succeeded."""
    both: int
    neither: int

    @property
    def episodes(self) -> int:
        return self.wins + self.losses + self.both + self.neither

    @property
    def p_value(self) -> float:
        """McNemar's exact two-sided test: the chance of a split at least as uneven between two actors equally good."""
        n, fewer = self.wins + self.losses, min(self.wins, self.losses)
        return min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n)


def pair(ours: Evaluation, theirs: Evaluation) -> Pairing:
    """Match two evaluations seed by seed."""
    a = {r.seed: r.success for r in ours.results}
    b = {r.seed: r.success for r in theirs.results}
    seeds = a.keys() & b.keys()
    return Pairing(
        wins=sum(a[s] and not b[s] for s in seeds),
        losses=sum(b[s] and not a[s] for s in seeds),
        both=sum(a[s] and b[s] for s in seeds),
        neither=sum(not a[s] and not b[s] for s in seeds),
    )
