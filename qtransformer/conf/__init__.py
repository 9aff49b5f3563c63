"""Hydra's overlays over the dataclasses of `qtransformer.cli.settings` and `qtransformer.config`."""
