"""Episodes as bags, and how they ended."""
