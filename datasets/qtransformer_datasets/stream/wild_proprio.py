"""Proprioception that is far off in single frames: normalisation takes its spread from all of them."""

from collections.abc import Sequence

import numpy as np

from qtransformer_datasets.episodes.wild_values import WildValue, WildValues
from qtransformer_datasets.stream.frames import EpisodeRecord, Frames


def wild_proprio(frames: Frames, records: Sequence[EpisodeRecord], names: Sequence[str]) -> list[WildValue]:
    """Per dimension; episodes are counted over the whole stream."""
    logged = np.ones(len(frames), bool)
    logged[[record.start + record.length for record in records if not record.has_final_observation]] = False
    rows = np.flatnonzero(logged)
    episodes = np.searchsorted([record.start for record in records], rows, "right") - 1
    wild = WildValues(names)
    wild.include(frames.proprio[rows], episodes, rows - frames.episode_start[rows])
    return wild.found()
