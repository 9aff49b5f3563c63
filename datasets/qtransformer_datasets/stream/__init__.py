"""The stream of frames, and the batches that are drawn from it."""
