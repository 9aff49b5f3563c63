"""The settings of `qtransformer data ...`. Of every verb that reads, `options` take what the format's reader knows beside them."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from qtransformer_datasets.data_source import Rewards


@dataclass(kw_only=True, slots=True)
class ReadSettings:
    """One dataset of any format, read."""

    path: str = MISSING
    """File or directory; the key may be left out, or written in=..."""
    format: str = "auto"
    """Its format; by default what lies at the path tells."""
    options: dict[str, Any] = field(default_factory=dict)
    """How it is read, written as key=value: cameras={new:old}, image_size=84, success=true, rewards=success, and what the format's
    reader knows beside them (dones=terminated, ...)."""


@dataclass(kw_only=True, slots=True)
class InspectSettings(ReadSettings):
    """Show what is in a dataset, and everything that is wrong with it. One screen. Exits with 1 if nothing can be read."""

    json: str = ""
    """File for the same as numbers."""


@dataclass(kw_only=True, slots=True)
class StatsSettings(ReadSettings):
    """Statistics of every dimension, of lengths and success, and of every instruction."""

    json: str = ""
    """File for the same as numbers."""


@dataclass(kw_only=True, slots=True)
class ValidateSettings:
    """List every problem of every episode of datasets, without stopping at the first. Exits with 1 if there is any."""

    path: list[str] = MISSING
    """Files, directories, or folders of them; the key may be left out."""
    format: str = "auto"
    """Their format; by default what lies at a path tells."""
    options: dict[str, Any] = field(default_factory=dict)
    """How they are read, written as key=value; see `data inspect`."""
    timeout: float = 60.0
    """Processor time [s] for opening a dataset or reading an episode, beside 1 s per 20 MB of the dataset, before it counts as
    hung: a damaged file can catch its library in an endless loop."""
    json: str = ""
    """File for the verdicts: path, episodes, steps, problems, and the reports of bags."""


@dataclass(kw_only=True, slots=True)
class ViewSettings(ReadSettings):
    """Write a self-contained page with videos, actions and rewards of episodes, or open them in rerun."""

    out: str = "view.html"
    """Page to write."""
    episodes: int = 12
    """Episodes shown, spread evenly over the dataset."""
    only: list[int] = field(default_factory=list)
    """Show these episodes instead, counted from 0: [3,17]."""
    rerun: bool = False
    """Open rerun (rerun-sdk) instead of writing a page."""


@dataclass(kw_only=True, slots=True)
class WriteSettings:
    """Datasets, read and written."""

    out: str = MISSING
    """File or directory to write; never overwritten. Run again after a kill, it goes on where the format can."""
    format: str = "auto"
    """Format of `out`; by default its name tells, else the format that is read."""
    out_options: dict[str, Any] = field(default_factory=dict)
    """Options of the format's writer, written as out.key=value."""
    input_format: str = "auto"
    """Format that is read; by default what lies at the path tells."""
    options: dict[str, Any] = field(default_factory=dict)
    """How it is read, written as key=value; see `data inspect`."""


@dataclass(kw_only=True, slots=True)
class CopySettings(WriteSettings):
    """One dataset, read and written."""

    path: str = MISSING
    """File or directory to read; the key may be left out, or written in=..."""


@dataclass(kw_only=True, slots=True)
class ConvertSettings(CopySettings):
    """Write a dataset in another format, or with other cameras or smaller images. Says beforehand what is lost."""

    check: bool = True
    """Read back what was written and compare all of it; images of a lossy format by their PSNR."""
    dry_run: bool = False
    """Say what would be written and lost, and stop."""


@dataclass(kw_only=True, slots=True)
class MergeSettings(WriteSettings):
    """Join datasets of equal cameras, proprioception and actions into one."""

    path: list[str] = MISSING
    """Files or directories, in this order; the key may be left out."""


@dataclass(kw_only=True, slots=True)
class SplitSettings(CopySettings):
    """Divide a dataset by episode into datasets of their own, each with its share of the successes. The original stays as it is."""

    out: str = MISSING
    """Folder for the parts, named train, validation and test; with masks=true, one file."""
    masks: bool = False
    """Write one file, a copy of a robomimic file with filter masks: train, valid and test; with filter_key=x, x_train and so on."""
    train: float = 0.8
    """Share of the episodes for training."""
    validation: float = 0.1
    """Share for validation; 0 writes none."""
    test: float = 0.1
    """Share for the test; 0 writes none."""
    by: str = ""
    """Keep episodes together that share this: `instruction`, or a key of the episodes' info (seed, mode)."""
    seed: int = 0
    """Seed of the draw."""
    dry_run: bool = False
    """Say what would go where, and stop."""


@dataclass(kw_only=True, slots=True)
class RelabelSettings(CopySettings):
    """Write a dataset with other labels of success, and rewards that follow from them: by flag, by hand or by a function."""

    success: bool | None = None
    """Every episode is a success (true), or none is (false)."""
    labels: str = ""
    """CSV with the columns episode,success, or JSON {"0": true}; episodes count from 0, those not listed keep their label."""
    function: str = ""
    """package.module:name of a function of an `Episode` that returns whether it succeeded, or the episode with other labels."""
    rewards: Rewards = Rewards.logged
    """Where rewards come from: the log, or 1 at the last step of a success, which ends the task, and 0 elsewhere."""
