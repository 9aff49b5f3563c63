"""A trained policy on a robot: pure code for contract, limits and control loop, and thin ROS 2 nodes around it.

Only files that end in `_node.py` import rclpy, and only `sim_node` imports the simulator.
"""
