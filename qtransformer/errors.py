"""The project's one error family. Every message says what was expected, what was found, where, and what fixes it.

The command line prints these as one clear sentence and exits non-zero; anything else that escapes is a bug.
"""


class QTransformerError(Exception):
    """Base class of every error a user can cause and mend."""


class ConfigError(QTransformerError):
    """A setting that does not exist, has the wrong type, or contradicts another."""


class DatasetError(QTransformerError):
    """Logged data that cannot be read or does not mean what it should."""


class SpecMismatchError(QTransformerError):
    """Cameras, shapes, units or action dimensions differ between two things that must agree."""


class StorageError(QTransformerError):
    """A file that cannot be written: full disk, no permission."""


class CheckpointError(QTransformerError):
    """A checkpoint that is incomplete, altered, or acts differently from the day it was saved."""
