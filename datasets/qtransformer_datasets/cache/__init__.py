"""Frames decoded once and kept on disk."""
