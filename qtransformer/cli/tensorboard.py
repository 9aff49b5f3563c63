"""Training curves for TensorBoard. A log that cannot be written must not stop a training."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoard:
    """A sink of the trainer. Curves of a resumed run go on where its checkpoint was; what came after it is purged."""

    def __init__(self, directory: Path, step: int) -> None:
        self._directory, self._step = directory, step
        self._writer: Any = None
        self._broken = False

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        if self._broken:
            return
        try:
            writer = self._writer or self._open()
            for name, value in values.items():
                writer.add_scalar(name, value, step)
            writer.flush()
        except Exception as error:  # whatever TensorBoard's writer thread met: a full disk, a missing folder, a version clash
            self._broken = True
            warnings.warn(f"TensorBoard log stopped: cannot write {self._directory}: {error}; the training goes on", stacklevel=2)

    def _open(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and not needed by a dry run

        self._writer = SummaryWriter(str(self._directory), purge_step=self._step + 1)
        return self._writer
