"""How a trained policy acts, where that shall not be as it was trained: one training answers for many ways of acting."""

from dataclasses import asdict, dataclass, replace

from qtransformer.config import Algo, TargetConfig, TrainConfig
from qtransformer.errors import ConfigError


@dataclass(kw_only=True, slots=True)
class ActingConfig:
    """The settings of `targets` that acting goes by, too; null is as trained."""

    proposals: int | None = None
    """Act by the most valuable of this many actions drawn from the behaviour classifier; 0 chooses dimension by
    dimension; null is as trained."""
    behavior_mask: float | None = None
    """Act only on bins that the behaviour takes at least this share as often as its likeliest one; 0 switches it off, null is
    as trained."""
    surprise: float | None = None
    """When acting by proposals, expect less of what is within this width of earlier disappointments; 0 switches it off, null is as
    trained."""

    @classmethod
    def of(cls, targets: TargetConfig) -> "ActingConfig":
        """All that a training says of acting."""
        return cls(proposals=targets.proposals, behavior_mask=targets.behavior_mask, surprise=targets.surprise)

    def over(self, config: TrainConfig) -> TargetConfig:
        """The settings to act by: what is asked for here, and for the rest those of the training.

        Raises:
            ConfigError: the training has not learned what they need, or would have refused them.
        """
        asked = {name: value for name, value in asdict(self).items() if value is not None}
        said = ", ".join(f"acting.{name}={value}" for name, value in asked.items())
        if asked and config.algo is Algo.bc:
            raise ConfigError(
                f"{said}: a cloned policy (algo=bc) acts by its behaviour classifier alone, which has no settings; leave them out, "
                "or act with a policy that was trained with algo=q or algo=mc"
            )
        if config.targets.behavior_mask == 0 and (self.proposals or self.behavior_mask):
            raise ConfigError(
                f"{said}: asks a behaviour classifier that this policy has not learned beside its values, for it was trained "
                "with targets.behavior_mask=0; leave it out, or train with a mask, targets.behavior_mask=.01 say"
            )
        try:
            return replace(config.targets, **asked)
        except ConfigError as error:
            raise ConfigError(f"{said}: no training may act so, {error}") from error

    def departures(self, trained: "ActingConfig") -> str:
        """Which of these settings are not those of a training, in words; "" where all are."""
        ours, theirs = asdict(self), asdict(trained)
        return ", ".join(f"{name}={value} (trained: {theirs[name]})" for name, value in ours.items() if value != theirs[name])

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in asdict(self).items())
