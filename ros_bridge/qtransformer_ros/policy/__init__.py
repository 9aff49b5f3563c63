"""What `qtransformer-policy` deploys, and whether that fits the robot."""
