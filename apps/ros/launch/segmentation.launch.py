"""Starts the segmentation node, configures it and activates it.

    ros2 launch $(python3 -c "import edgeseg.apps.ros as m; print(m.__path__[0])")/launch/segmentation.launch.py \
        bundle:=/home/me/road.edgeseg image:=/front/image_raw

It has not been run with ROS 2 yet.
"""

from __future__ import annotations

import sys

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

PARAMETERS = {
    "bundle": ("folder that edgeseg convert wrote", None, str),
    "backend": ("engine: tensorrt, openvino, onnxruntime or auto", "auto", str),
    "threads": ("CPU threads; 0 for all", "0", int),
    "compressed": ("whether the image topic holds CompressedImage", "false", bool),
    "overlay": ("whether an overlay is published too", "false", bool),
    "alpha": ("share of the colours in it, 0 to 1", "0.5", float),
    "deadline_ms": ("longest wait of an image for the engine; 0 for any", "0.0", float),
}


def generate_launch_description() -> LaunchDescription:
    """What ros2 launch asks for."""
    node = LifecycleNode(
        name="edgeseg",
        namespace=LaunchConfiguration("namespace"),
        executable=sys.executable,
        arguments=["-m", "edgeseg.apps.ros.node"],
        parameters=[
            {
                name: ParameterValue(LaunchConfiguration(name), value_type=kind)
                for name, (_, _, kind) in PARAMETERS.items()
            }
        ],
        remappings=[("image", LaunchConfiguration("image"))],
        output="screen",
    )
    configure = EmitEvent(
        event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=Transition.TRANSITION_CONFIGURE)
    )
    activate = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[
                EmitEvent(
                    event=ChangeState(
                        lifecycle_node_matcher=matches_action(node), transition_id=Transition.TRANSITION_ACTIVATE
                    )
                )
            ],
        )
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, description=text, **({} if default is None else {"default_value": default}))
                for name, (text, default, _) in PARAMETERS.items()
            ),
            DeclareLaunchArgument("image", default_value="image", description="topic of the images"),
            DeclareLaunchArgument("namespace", default_value="", description="of the node and its topics"),
            activate,
            node,
            configure,
        ]
    )
