"""The control loop of a deployed policy, without ROS."""
