"""How the data verbs write: never over anything, with a progress bar, and on from where a killed run stopped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qtransformer.cli.data.reading import count, episode_bar
from qtransformer.cli.data_settings import WriteSettings
from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets.cache.layout import source_stamps
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.episodes.protocols import LoggedEpisodes
from qtransformer_datasets.formats import create_writer, format_of, open_episodes

DERIVED = "derived"
"""The attribute that says what a dataset was made of."""


def check_free(out: str) -> None:
    """Raise unless there is nothing at the path."""
    if Path(out).exists():
        raise ConfigError(f"{out}: expected a free path, found something there; choose another out=... or delete it")


def is_written(out: Path, format: str, derived: Mapping[str, Any]) -> bool:
    """Whether a killed run of the same command finished this dataset already; anything else that lies there is refused."""
    if not out.exists():
        return False
    found = open_episodes(out, format).attributes.get(DERIVED)
    if not isinstance(found, dict) or any(found.get(name) != value for name, value in derived.items()):
        raise ConfigError(f"{out}: expected a free path, found a dataset made otherwise; choose another out=... or delete it")
    return True


def output_format(settings: WriteSettings, source: DataSource) -> str:
    """The name of the format asked for, else of the one that the path's name belongs to, else of the input."""
    if settings.format != "auto":
        return format_of(settings.out, settings.format, writing=True).name
    try:
        return format_of(settings.out).name
    except DatasetError:
        return format_of(source.path, source.format).name


def write(
    settings: WriteSettings,
    episodes: LoggedEpisodes,
    out: Path,
    format: str,
    derived: Mapping[str, Any],
) -> None:
    """Write all episodes to `out`. `derived` tells, in the dataset, what it was made of; a resumed run must say the same."""
    attributes = {**episodes.attributes, DERIVED: {**derived, "episodes": len(episodes)}}
    specs = (episodes.action_spec, episodes.observation_spec)
    writer = create_writer(out, *specs, attributes, format, resume=True, **settings.out_options)
    with writer:
        if len(writer):
            print(f"{out}: going on after {count(len(writer), 'episode')}", flush=True)
        for index in episode_bar(f"write {out.name}")(range(len(writer), len(episodes))):
            writer.append(episodes.read(index))


def provenance(verb: str, sources: Sequence[DataSource], **settings: Any) -> dict[str, Any]:
    """What a written dataset says of its making: names, not places. The stamps keep a killed run from going on after a change."""
    inputs = [{**_options(source), "name": Path(source.path).name} for source in sources]
    stamps = [stamp for source in sources for stamp in source_stamps(Path(source.path), source.options)]
    return {"verb": verb, "from": inputs, "source_stamps": stamps, **settings}


def _options(source: DataSource) -> dict[str, Any]:
    value = source.to_value()
    return {} if isinstance(value, str) else {k: v for k, v in value.items() if k != "path"}
