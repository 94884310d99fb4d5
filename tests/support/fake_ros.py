"""As much of rclpy as the node uses, with its documentation's names and argument orders; messages keep fields."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class Message:
    """Any message: fields that are not given are made on the way, as ROS's defaults are."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class Publisher:
    def __init__(self, kind: type, topic: str, qos: Any) -> None:
        self.kind, self.topic, self.qos = kind, topic, qos
        self.messages: list[Any] = []
        self.destroyed = False

    def publish(self, message: Any) -> None:
        assert not self.destroyed
        assert isinstance(message, self.kind)
        self.messages.append(message)


class Logger:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def error(self, line: str) -> None:
        self.lines.append(("error", line))

    def warning(self, line: str, *, throttle_duration_sec: float = 0.0) -> None:
        self.lines.append(("warning", line))


class LifecycleNode:
    given: dict[str, Any] = {}  # noqa: RUF012  (a test's parameters, as a launch file gives them)

    def __init__(self, name: str) -> None:
        self.name = name
        self.parameters: dict[str, Any] = {}
        self.publishers: dict[str, Publisher] = {}
        self.subscriptions: dict[str, Any] = {}
        self.logger = Logger()

    def declare_parameter(self, name: str, default: Any) -> None:
        self.parameters[name] = self.given.get(name, default)

    def get_parameter(self, name: str) -> Any:
        return SimpleNamespace(value=self.parameters[name])

    def get_logger(self) -> Logger:
        return self.logger

    def get_clock(self) -> Any:
        return SimpleNamespace(now=lambda: SimpleNamespace(to_msg=lambda: "now"))

    def create_lifecycle_publisher(self, kind: type, topic: str, qos: Any) -> Publisher:
        self.publishers[topic] = Publisher(kind, topic, qos)
        return self.publishers[topic]

    def destroy_publisher(self, publisher: Publisher) -> None:
        publisher.destroyed = True

    def create_subscription(self, kind: type, topic: str, callback: Any, qos: Any) -> str:
        self.subscriptions[topic] = (kind, callback)
        return topic

    def destroy_subscription(self, subscription: str) -> None:
        del self.subscriptions[subscription]

    def on_activate(self, state: Any) -> str:
        return "SUCCESS"

    def on_deactivate(self, state: Any) -> str:
        return "SUCCESS"


def install(patch: pytest.MonkeyPatch, parameters: dict[str, Any]) -> None:
    """Put the fake in the place of ROS 2."""
    patch.setattr(LifecycleNode, "given", parameters)
    modules: dict[str, dict[str, Any]] = {
        "rclpy": {"init": lambda args: None, "spin": lambda node: None, "try_shutdown": lambda: None},
        "rclpy.executors": {"ExternalShutdownException": type("ExternalShutdownException", (Exception,), {})},
        "rclpy.lifecycle": {
            "LifecycleNode": LifecycleNode,
            "TransitionCallbackReturn": SimpleNamespace(SUCCESS="SUCCESS", FAILURE="FAILURE"),
        },
        "rclpy.qos": {
            "QoSProfile": lambda **fields: fields,
            "DurabilityPolicy": SimpleNamespace(TRANSIENT_LOCAL="transient local"),
            "qos_profile_sensor_data": "sensor data",
        },
    }
    for package, names in {
        "sensor_msgs": ("Image", "CompressedImage"),
        "vision_msgs": ("LabelInfo", "VisionClass"),
        "std_msgs": ("Header",),
    }.items():
        modules[package] = {}
        modules[f"{package}.msg"] = {name: type(name, (Message,), {}) for name in names}
    for name, content in modules.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        patch.setitem(__import__("sys").modules, name, module)
