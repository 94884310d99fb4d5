"""The ROS 2 node, `python3 -m edgeseg.apps.ros.node`: a lifecycle node around `edgeseg.apps.ros.live`.

Written for rclpy of Humble and later; it has not been run with ROS 2 yet. What it does with messages is tested without.

Subscribes `image` (sensor_msgs/Image, or CompressedImage with the parameter `compressed`), newest first. Publishes
`class_map` (mono8), `label_info` (vision_msgs/LabelInfo, transient local) and, with the parameter `overlay`, `overlay`.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.ros.messages import CLASS, COMPRESSED_IMAGE, IMAGE, LABEL_INFO, label_info_message
from edgeseg.errors import EdgesegError, MissingDependencyError

__all__ = ["PARAMETERS", "RclpyMessages", "main", "make_node"]

PARAMETERS: dict[str, Any] = {
    "bundle": "",
    "backend": "auto",
    "threads": 0,
    "compressed": False,
    "overlay": False,
    "alpha": 0.5,
    "deadline_ms": 0.0,
}
"""Names and defaults; 0 threads are all, and a deadline of 0 is none. They are read when the node is configured."""

_DISTRIBUTION = "$ROS_DISTRO"


class RclpyMessages:
    """A `MessageMaker` of ROS's own message classes."""

    def make(self, kind: str, **fields: Any) -> Any:
        """See `MessageMaker.make`."""
        return message_type(kind)(**fields)

    def octets(self, pixels: NDArray[np.uint8]) -> array.array[int]:
        """See `MessageMaker.octets`; of what rclpy takes for uint8[], the one that it does not check byte by byte."""
        return array.array("B", np.ascontiguousarray(pixels).tobytes())


def message_type(kind: str) -> Any:
    """The class of a message such as "sensor_msgs/msg/Image".

    Raises:
        MissingDependencyError: when its package is not installed.
    """
    package, _, name = kind.split("/")
    return getattr(_ros(f"{package}.msg", package), name)


def make_node() -> Any:
    """The node, unconfigured.

    Raises:
        MissingDependencyError: without ROS 2 or vision_msgs.
    """
    lifecycle, qos = _ros("rclpy.lifecycle", "rclpy"), _ros("rclpy.qos", "rclpy")
    for kind in (IMAGE, LABEL_INFO, CLASS):
        message_type(kind)
    transition = lifecycle.TransitionCallbackReturn

    class SegmentationNode(lifecycle.LifecycleNode):  # type: ignore[misc, name-defined]
        """See the module."""

        def __init__(self) -> None:
            super().__init__("edgeseg")
            for name, default in PARAMETERS.items():
                self.declare_parameter(name, default)
            self._segmenter: Any = None
            self._subscription: Any = None

        def on_configure(self, state: Any) -> Any:
            import edgeseg
            from edgeseg.apps.ros.live import LiveMasks

            given = {name: self.get_parameter(name).value for name in PARAMETERS}
            try:
                self._segmenter = edgeseg.load(
                    given["bundle"], backend=given["backend"], threads=given["threads"] or None
                )
            except EdgesegError as error:
                self.get_logger().error(str(error))
                return transition.FAILURE
            latched = qos.QoSProfile(depth=1, durability=qos.DurabilityPolicy.TRANSIENT_LOCAL)
            image = message_type(IMAGE)
            self._outputs = {"class_map": self.create_lifecycle_publisher(image, "class_map", 10)}
            self._labels = self.create_lifecycle_publisher(message_type(LABEL_INFO), "label_info", latched)
            if given["overlay"]:
                self._outputs["overlay"] = self.create_lifecycle_publisher(image, "overlay", 10)
            self._kind = COMPRESSED_IMAGE if given["compressed"] else IMAGE
            self._masks = LiveMasks(
                self._segmenter,
                RclpyMessages(),
                self._kind,
                lambda name, message: self._outputs[name].publish(message),
                lambda line: self.get_logger().warning(line, throttle_duration_sec=1.0),
                overlay=given["overlay"],
                alpha=given["alpha"],
                deadline_ms=given["deadline_ms"] or None,
            )
            return transition.SUCCESS

        def on_activate(self, state: Any) -> Any:
            done = super().on_activate(state)
            header = RclpyMessages().make("std_msgs/msg/Header", stamp=self.get_clock().now().to_msg())
            self._labels.publish(label_info_message(RclpyMessages(), header, self._segmenter.labels))
            # Sensor data: depth 5, best effort, which also receives from reliable publishers.
            self._subscription = self.create_subscription(
                message_type(self._kind), "image", self._masks.take, qos.qos_profile_sensor_data
            )
            return done

        def on_deactivate(self, state: Any) -> Any:
            self._unsubscribe()
            return super().on_deactivate(state)

        def on_cleanup(self, state: Any) -> Any:
            self._free()
            return transition.SUCCESS

        def on_shutdown(self, state: Any) -> Any:
            self._free()
            return transition.SUCCESS

        def _unsubscribe(self) -> None:
            subscription, self._subscription = self._subscription, None
            if subscription is not None:
                self.destroy_subscription(subscription)

        def _free(self) -> None:
            self._unsubscribe()
            segmenter, self._segmenter = self._segmenter, None
            if segmenter is not None:
                segmenter.close()
                for publisher in (self._labels, *self._outputs.values()):
                    self.destroy_publisher(publisher)

    return SegmentationNode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until Ctrl-C or SIGTERM; its transitions come from a launch file or `ros2 lifecycle`."""
    try:
        rclpy, executors = _ros("rclpy", "rclpy"), _ros("rclpy.executors", "rclpy")
        rclpy.init(args=None if arguments is None else list(arguments))
        try:
            rclpy.spin(make_node())
        except executors.ExternalShutdownException as ended:  # what rclpy makes of SIGTERM
            raise KeyboardInterrupt from ended
        finally:
            rclpy.try_shutdown()
    except EdgesegError as error:
        sys.stderr.write(f"edgeseg: error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("edgeseg: interrupted\n")
        return 130
    return 0


def _ros(module: str, package: str) -> Any:
    """A module of ROS 2, which comes from apt and is found once its setup file was sourced."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        apt = f"ros-{_DISTRIBUTION}-{package.replace('_', '-')}"
        cure = f"source /opt/ros/{_DISTRIBUTION}/setup.bash, after: sudo apt install {apt}"
        raise MissingDependencyError(module.partition(".")[0], "run the ROS 2 node", cure) from error


if __name__ == "__main__":
    sys.exit(main())
