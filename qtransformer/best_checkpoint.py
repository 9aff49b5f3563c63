"""Which checkpoint of a run counts as the best: chosen by validation, and named though a kill came between."""

from pathlib import Path

from qtransformer.checkpoint import best_scores, set_best
from qtransformer.evaluate import evaluate
from qtransformer.intervals import no_worse
from qtransformer.types import Actor, Env

VALIDATION_SEED = 500_000
"""First seed of validation episodes, far from any used for collection or test."""


class BestCheckpoint:
    """Keeps `best.json` of a run at the newest checkpoint that is no worse than the highest before it.

    Args:
        root: the run's `checkpoints` directory.
        env: with validation objects; None where nothing is evaluated.
        actor: the policy that is trained.
        episodes: validation episodes of every checkpoint; 0 evaluates none.
    """

    def __init__(self, root: Path, env: Env | None, actor: Actor, episodes: int) -> None:
        self._root, self._env, self._actor, self._episodes = root, env, actor, episodes
        self.highest: float | None = None
        """Highest validation success so far; None before the first."""

    def validate(self) -> float | None:
        """Success on validation objects; None where nothing is evaluated."""
        if not self._episodes or self._env is None:
            return None
        return evaluate(self._env, self._actor, range(VALIDATION_SEED, VALIDATION_SEED + self._episodes)).success

    def is_chosen_by(self, success: float | None) -> bool:
        """Whether a checkpoint with this validation success is the best from here on."""
        if success is None:
            return False
        highest = success if self.highest is None else self.highest
        self.highest = max(success, highest)
        return no_worse(success, highest, self._episodes)

    def choose(self, checkpoint: Path, success: float) -> None:
        """Point `best.json` at a checkpoint."""
        set_best(self._root, checkpoint, validation_success=success)

    def restore(self, checkpoint: Path, highest: float | None, chosen_with: float | None) -> None:
        """Go on from a checkpoint, which was chosen with the success `chosen_with` if that is not None: saving it may have been
        killed before `best.json` said so."""
        self.highest = highest
        found = best_scores(self._root)
        chosen_otherwise = found and "validation_success" not in found  # by `eval select=true`, which comes later
        if chosen_with is not None and not chosen_otherwise:
            self.choose(checkpoint, chosen_with)
