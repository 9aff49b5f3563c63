"""What an arm is told: motions, their limits, and the commands that carry them."""
