"""A trained policy on a robot: pure code for contract, limits and control loop, and the ROS 2 nodes around it.

Only what lies below `nodes/` imports rclpy or message packages, and only `nodes/sim_node.py` and `simulated/` the simulator.
"""
