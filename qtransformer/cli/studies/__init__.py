"""Studies: grids of trainings over seeds, run once, kept for good."""
