"""The simulated robot behind `qtransformer-sim`, without ROS."""
