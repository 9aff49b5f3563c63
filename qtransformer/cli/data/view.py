"""`qtransformer data view`: a page of a dataset, or the same in rerun."""

from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from qtransformer.cli.compose import UsageError
from qtransformer.cli.data.reading import count, data_source, episode_bar
from qtransformer.cli.data_settings import ViewSettings
from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets.curation.survey import survey
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.episodes.protocols import LoggedEpisodes
from qtransformer_datasets.formats import format_of


def run(settings: ViewSettings) -> int:
    source = data_source(settings.path, settings.format, settings)
    episodes = source.open()
    if settings.rerun:
        open_rerun(episodes, choose(list(range(len(episodes))), settings), Path(settings.path).name)
        return 0
    page = write_page(source, episodes, settings)
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB")
    return 0


def write_page(source: DataSource, episodes: LoggedEpisodes, settings: ViewSettings) -> Path:
    """Read the dataset once for the tables, and the shown episodes again for their images."""
    from qtransformer.report.dataset_page import DatasetRecord, build_dataset_page  # slow to import, and only needed here

    found = survey(episodes, episode_bar("read"))
    if not found.episodes:
        raise DatasetError(f"{settings.path}: no episode can be read; `qtransformer data validate` lists why")
    shown = choose(list(found.episodes), settings)
    record = DatasetRecord(
        name=Path(settings.path).name,
        origin=f"{format_of(source.path, source.format).name} · {count(len(episodes), 'episode')}",
        action_spec=episodes.action_spec,
        observation_spec=episodes.observation_spec,
        episodes=found.episodes,
        attributes=episodes.attributes,
        problems=found.problems,
    )
    out = Path(settings.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    hidden = ""
    if len(shown) < len(found.episodes):
        hidden = f"{len(shown)} of {len(found.episodes):,} episodes are shown; episodes=... or only=[...] shows others."
    return build_dataset_page(record, episode_bar("film")(shown), episodes.read, out, hidden)


def choose(readable: Sequence[int], settings: ViewSettings) -> list[int]:
    """Those asked for, else a number of them spread evenly.

    Raises:
        UsageError: an episode that is not there, or none at all.
    """
    missing = [index for index in settings.only if index not in readable]
    if missing or settings.episodes < 1:
        what = f"only={missing}" if missing else f"episodes={settings.episodes}"
        raise UsageError(f"data view: {what} is not among the readable episodes 0 to {max(readable)}; name others")
    if settings.only:
        return settings.only
    places = np.linspace(0, len(readable) - 1, min(settings.episodes, len(readable)))
    return [readable[int(place)] for place in places.round()]


def open_rerun(episodes: LoggedEpisodes, shown: Iterable[int], name: str) -> None:
    """Start the viewer and send it the episodes, each a recording of its own."""
    try:
        rr: Any = import_module("rerun")
    except ImportError as error:
        raise ConfigError(
            f"rerun cannot be imported ({error}); pip install rerun-sdk, or leave rerun=true out for a page"
        ) from None
    for index in shown:
        recording = rr.RecordingStream(f"qtransformer {name}", recording_id=f"{name} {index}")
        recording.spawn()
        send_episode(rr, recording, episodes, index)


def send_episode(rr: Any, recording: Any, episodes: LoggedEpisodes, index: int) -> None:
    """Images, actions in robot units, proprioception and rewards, by step."""
    episode, spec, seen = episodes.read(index), episodes.action_spec, episodes.observation_spec
    actions = spec.to_units(episode.actions)
    outcome = "success" if episode.success else "failure"
    recording.log("episode", rr.TextDocument(f"{outcome}: {episode.instruction}"), static=True)
    for t in range(len(episode) + 1):
        recording.set_time("step", sequence=t)
        for camera, rows in episode.images.items():
            recording.log(f"cameras/{camera}", rr.Image(rows[t]))
        for key, value in zip(seen.proprio_names, episode.proprio[t], strict=True):
            recording.log(f"proprio/{key}", rr.Scalars(float(value)))
        if t < len(episode):
            for key, value in zip(spec.names, actions[t], strict=True):
                recording.log(f"action/{key}", rr.Scalars(float(value)))
            recording.log("reward", rr.Scalars(float(episode.rewards[t])))
