"""What the ROS 2 node does with messages, and its wiring against a stand-in of rclpy."""

from __future__ import annotations

import array
import ast
import queue
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support import fake_ros

import edgeseg as library
from edgeseg.apps.ros import node as node_module
from edgeseg.apps.ros.live import LiveMasks
from edgeseg.apps.ros.messages import IMAGE
from edgeseg.apps.ros.node import PARAMETERS, RclpyMessages, make_node
from edgeseg.errors import MissingDependencyError
from edgeseg.segmenter import Segmenter

PATIENCE = 20
LAUNCH = Path(node_module.__file__).parent / "launch" / "segmentation.launch.py"


class Namespaces:
    """A `MessageMaker` whose messages are plain namespaces."""

    def make(self, kind: str, **fields: Any) -> Any:
        return SimpleNamespace(kind=kind, **fields)

    def octets(self, pixels: np.ndarray) -> bytes:
        return pixels.tobytes()


def image(left: int, encoding: str = "rgb8") -> Any:
    frame = np.zeros((24, 32, 3), np.uint8)
    frame[:, :, left] = 200
    return SimpleNamespace(
        header=f"header {left}", encoding=encoding, height=24, width=32, step=96, data=array.array("B", frame.tobytes())
    )


@pytest.fixture
def segmenter(bundle: Path, cache: Path) -> Iterator[Segmenter]:
    with library.load(bundle) as made:
        yield made


class TestLiveMasks:
    def test_publishes_with_the_header_of_the_image(self, segmenter: Segmenter) -> None:
        published: queue.Queue[tuple[str, Any]] = queue.Queue()
        warnings: list[str] = []
        masks = LiveMasks(
            segmenter, Namespaces(), IMAGE, lambda *entry: published.put(entry), warnings.append, overlay=True, alpha=1
        )
        for left in range(3):
            masks.take(image(left))
            name, found = published.get(timeout=PATIENCE)
            assert (name, found.kind, found.encoding, found.header) == ("class_map", IMAGE, "mono8", f"header {left}")
            assert found.data == bytes([left]) * (24 * 32)
            name, drawn = published.get(timeout=PATIENCE)
            assert (name, drawn.encoding, drawn.header, drawn.step) == ("overlay", "rgb8", f"header {left}", 96)
            assert drawn.data[:3] == bytes(255 * (i == left) for i in range(3))
        assert (warnings, masks.dropped) == ([], 0)

    def test_warns_of_what_it_cannot_read(self, segmenter: Segmenter) -> None:
        warnings: list[str] = []
        masks = LiveMasks(segmenter, Namespaces(), IMAGE, lambda *entry: None, warnings.append)
        masks.take(image(0, "16UC1"))
        assert len(warnings) == 1
        assert "the image has the encoding '16UC1'" in warnings[0]
        segmenter.close()
        masks.take(image(0))
        assert warnings[1].startswith("the segmenter is closed")

    def test_keeps_up_by_leaving_out(self, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
        import threading

        published: queue.Queue[tuple[str, Any]] = queue.Queue()
        go, reached, segment = threading.Event(), threading.Event(), Segmenter._segment

        def held(*arguments: Any, **options: Any) -> Any:
            reached.set()
            assert go.wait(PATIENCE)
            return segment(*arguments, **options)

        monkeypatch.setattr(Segmenter, "_segment", held)
        masks = LiveMasks(segmenter, Namespaces(), IMAGE, lambda *entry: published.put(entry), lambda line: None)
        masks.take(image(0))
        assert reached.wait(PATIENCE)
        for _ in range(5):
            masks.take(image(1))
        masks.take(image(2))
        go.set()
        assert [published.get(timeout=PATIENCE)[1].header for _ in range(2)] == ["header 0", "header 2"]
        assert masks.dropped == 5


class TestNode:
    @pytest.fixture
    def node(self, bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        fake_ros.install(monkeypatch, {"bundle": str(bundle), "overlay": True})
        return make_node()

    def test_goes_through_its_life(self, node: Any) -> None:
        assert node.parameters == {**PARAMETERS, "bundle": node.parameters["bundle"], "overlay": True}
        assert node.on_configure(None) == "SUCCESS"
        assert sorted(node.publishers) == ["class_map", "label_info", "overlay"]
        assert node.publishers["label_info"].qos == {"depth": 1, "durability": "transient local"}
        assert node.subscriptions == {}
        assert node.on_activate(None) == "SUCCESS"
        (labels,) = node.publishers["label_info"].messages
        assert [(c.class_id, c.class_name) for c in labels.class_map] == [(0, "red"), (1, "green"), (2, "blue")]
        kind, callback = node.subscriptions["image"]
        assert kind.__name__ == "Image"
        callback(image(1))
        assert node.on_deactivate(None) == "SUCCESS"
        assert node.subscriptions == {}
        assert node.on_cleanup(None) == "SUCCESS"
        assert all(publisher.destroyed for publisher in node.publishers.values())
        assert node.on_configure(None) == "SUCCESS"
        assert node.on_shutdown(None) == "SUCCESS"
        assert node.logger.lines == []

    def test_publishes_masks(self, node: Any) -> None:
        node.on_configure(None)
        node.on_activate(None)
        published: queue.Queue[Any] = queue.Queue()
        node.publishers["class_map"].publish = published.put
        node.subscriptions["image"][1](image(1))
        found = published.get(timeout=PATIENCE)
        assert (type(found).__name__, found.header, found.encoding) == ("Image", "header 1", "mono8")
        assert found.data == array.array("B", [1] * 24 * 32)
        node.on_shutdown(None)

    def test_says_why_it_cannot_be_configured(self, node: Any) -> None:
        node.parameters["bundle"] = "/none.edgeseg"
        assert node.on_configure(None) == "FAILURE"
        ((level, line),) = node.logger.lines
        assert level == "error"
        assert "there is no bundle at /none.edgeseg" in line

    def test_takes_compressed_images_where_told(self, node: Any) -> None:
        node.parameters["compressed"] = True
        node.on_configure(None)
        node.on_activate(None)
        assert node.subscriptions["image"][0].__name__ == "CompressedImage"
        node.on_shutdown(None)

    @pytest.mark.parametrize("ending", ["SIGINT", "SIGTERM"])
    def test_ends_in_one_line(
        self, ending: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """rclpy raises KeyboardInterrupt at the one signal and an exception of its own at the other."""
        fake_ros.install(monkeypatch, {})
        rclpy, executors = sys.modules["rclpy"], sys.modules["rclpy.executors"]
        error = KeyboardInterrupt if ending == "SIGINT" else executors.ExternalShutdownException
        shut_down: list[bool] = []

        def spin(node: Any) -> None:
            raise error

        monkeypatch.setattr(rclpy, "spin", spin)
        monkeypatch.setattr(rclpy, "try_shutdown", lambda: shut_down.append(True))
        assert node_module.main([]) == 130
        assert capsys.readouterr().err == "edgeseg: interrupted\n"
        assert shut_down == [True]

    def test_gives_pixels_as_ros_wants_them(self) -> None:
        pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)[:, ::2]
        assert RclpyMessages().octets(pixels) == array.array("B", [0, 2, 4, 6, 8, 10])

    def test_the_launch_file_gives_its_parameters(self) -> None:
        tree = ast.parse(LAUNCH.read_text("utf-8"))
        (table,) = [
            n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "PARAMETERS"
        ]
        assert isinstance(table, ast.Dict)
        found = {ast.literal_eval(k): ast.unparse(v.elts[2]) for k, v in zip(table.keys, table.values, strict=True)}
        assert found == {name: type(value).__name__ for name, value in PARAMETERS.items()}


class TestWithoutROS:
    def test_one_line(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "edgeseg.apps.ros.node"], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            "edgeseg: error: rclpy is needed to run the ROS 2 node, but it is not installed; run: source "
            "/opt/ros/$ROS_DISTRO/setup.bash, after: sudo apt install ros-$ROS_DISTRO-rclpy\n"
        )

    def test_without_vision_msgs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_ros.install(monkeypatch, {})
        monkeypatch.delitem(sys.modules, "vision_msgs.msg")
        monkeypatch.delitem(sys.modules, "vision_msgs")
        with pytest.raises(MissingDependencyError, match=r"sudo apt install ros-\$ROS_DISTRO-vision-msgs"):
            make_node()
