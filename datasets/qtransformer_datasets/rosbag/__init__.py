"""rosbag2 without ROS, and what a robot's topics mean: shared with the node that acts on them."""
