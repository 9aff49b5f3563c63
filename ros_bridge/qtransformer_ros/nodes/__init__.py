"""The four programs as ROS 2 nodes, what they share, and what the policy's is cut into. Nobody else imports rclpy."""
