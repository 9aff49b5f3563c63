"""Episodes as bags."""
