"""Logged robot data: files of episodes, and the stream of frames that training draws from.

EpisodeSource (one adapter per file format) -> EpisodeDataset (a stream of frames in memory) -> segments -> Batch
"""

from qtransformer_datasets.curation.inspect import inspect_dataset
from qtransformer_datasets.curation.verify import verify
from qtransformer_datasets.episode_dataset import EpisodeDataset
from qtransformer_datasets.formats import create_writer, open_episodes
from qtransformer_datasets.robomimic.reader import HDF5Episodes
from qtransformer_datasets.robomimic.writer import HDF5Writer

__all__ = ["EpisodeDataset", "HDF5Episodes", "HDF5Writer", "create_writer", "inspect_dataset", "open_episodes", "verify"]
