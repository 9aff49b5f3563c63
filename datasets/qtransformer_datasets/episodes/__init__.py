"""What every format has in common: how an episode is checked, read and written, and what damaged files may do."""
