"""Logged robot data: files of episodes, and the stream of frames that training draws from.

EpisodeSource (one adapter per file format) -> EpisodeDataset (a stream of frames in memory) -> segments -> Batch
"""

from qtransformer_datasets.episode_dataset import EpisodeDataset
from qtransformer_datasets.formats import create_writer, open_episodes
from qtransformer_datasets.inspect import inspect_dataset
from qtransformer_datasets.robomimic_hdf5 import HDF5Episodes
from qtransformer_datasets.robomimic_writer import HDF5Writer
from qtransformer_datasets.verify import verify

__all__ = ["EpisodeDataset", "HDF5Episodes", "HDF5Writer", "create_writer", "inspect_dataset", "open_episodes", "verify"]
