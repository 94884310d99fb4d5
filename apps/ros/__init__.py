"""ROS 2: segmented bags without a ROS installation, and a node for where there is one."""
