"""`edgeseg bag`: a recording with images in, one with masks out."""

from __future__ import annotations

import contextlib
import gc
import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed; run: pip install 'edgeseg[ros]'")

from support import bags
from support.bags import START, STRING, Entry, write_bag
from support.colours import COLOURS, Run

from edgeseg.apps.ros.cdr import CDRMessages
from edgeseg.apps.ros.messages import COMPRESSED_IMAGE, IMAGE, LABEL_INFO

FRONT = "/front/image_raw"


def picture(left: int, height: int = 24, width: int = 32) -> np.ndarray:
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, : width // 2, left] = 200
    frame[:, width // 2 :, 2] = 100
    return frame


def chatter(text: str, time: int) -> Entry:
    return Entry("/chatter", STRING, CDRMessages().make(STRING, data=text), time)


def drive(count: int = 3) -> list[Entry]:
    """Images with red, green and blue to the left, and another topic between them."""
    found = []
    for i in range(count):
        found.append(Entry(FRONT, IMAGE, bags.image(picture(i % 3), i * 100, frame_id="front"), i * 100))
        found.append(chatter(str(i), i * 100 + 50))
    return found


@pytest.fixture(params=["mcap", "sqlite3"])
def storage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestBag:
    def test_masks_have_the_stamps_of_their_images(
        self, edgeseg: Run, bundle: Path, tmp_path: Path, storage: str
    ) -> None:
        source = write_bag(tmp_path / "drive", drive(), storage=storage)
        code, out, err = edgeseg("bag", bundle, source, tmp_path / "masks")
        assert (code, err) == (0, "")
        assert f"{tmp_path / 'masks'}: 3 frames in" in out
        assert f"{FRONT} -> {FRONT}/class_map, {FRONT}/label_info" in out
        info, *masks = bags.read_bag(tmp_path / "masks")
        assert (info.topic, info.kind, info.time) == (f"{FRONT}/label_info", LABEL_INFO, START)
        assert [(c.class_id, c.class_name) for c in info.message.class_map] == list(enumerate(COLOURS.names))
        assert [mask.topic for mask in masks] == [f"{FRONT}/class_map"] * 3
        assert [mask.time for mask in masks] == [START, START + 100, START + 200]
        for index, mask in enumerate(masks):
            assert bags.nanoseconds(mask.message.header) == START + index * 100 - 5
            assert mask.message.header.frame_id == "front"
            assert (mask.message.encoding, mask.message.height, mask.message.width) == ("mono8", 24, 32)
            classes = bags.pixels(mask.message)
            assert (classes[:, :16] == index).all()
            assert (classes[:, 16:] == 2).all()

    def test_is_stored_as_the_source_or_as_told(self, edgeseg: Run, bundle: Path, tmp_path: Path, storage: str) -> None:
        source = write_bag(tmp_path / "drive", drive(), storage=storage)
        suffix = {"mcap": ".mcap", "sqlite3": ".db3"}
        assert edgeseg("bag", bundle, source, tmp_path / "same")[0] == 0
        assert (tmp_path / "same" / f"same{suffix[storage]}").is_file()
        other = next(name for name in suffix if name != storage)
        file = next(source.glob(f"*{suffix[storage]}"))
        assert edgeseg("bag", bundle, file, tmp_path / "other", "--storage", other)[0] == 0
        assert sorted(p.name for p in (tmp_path / "other").iterdir()) == ["metadata.yaml", f"other{suffix[other]}"]
        assert len(bags.read_bag(tmp_path / "other")) == 4
        assert f"storage_identifier: {other}" in (tmp_path / "other" / "metadata.yaml").read_text()

    def test_classes_reach_who_comes_late(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        from rosbags.interfaces import QosDurability
        from rosbags.rosbag2 import Reader

        source = write_bag(tmp_path / "drive", drive())
        assert edgeseg("bag", bundle, source, tmp_path / "masks")[0] == 0
        with Reader(tmp_path / "masks") as reader:
            found = {c.topic.rpartition("/")[2]: c.ext.offered_qos_profiles[0].durability for c in reader.connections}
        assert found == {"class_map": QosDurability.VOLATILE, "label_info": QosDurability.TRANSIENT_LOCAL}

    def test_overlays(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        source = write_bag(tmp_path / "drive", drive())
        assert edgeseg("bag", bundle, source, tmp_path / "masks", "--overlay", "--alpha", "1")[0] == 0
        drawn = [entry for entry in bags.read_bag(tmp_path / "masks") if entry.topic == f"{FRONT}/overlay"]
        assert len(drawn) == 3
        assert drawn[1].message.encoding == "rgb8"
        assert (bags.pixels(drawn[1].message)[5, 5] == COLOURS.palette[1]).all()
        assert bags.nanoseconds(drawn[1].message.header) == START + 95

    def test_compressed_images(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        entries = [
            Entry("/c/compressed", COMPRESSED_IMAGE, bags.compressed(picture(i, 60, 80), i, suffix=".jpg"), i)
            for i in range(3)
        ]
        source = write_bag(tmp_path / "drive", entries)
        found = json.loads(edgeseg("bag", bundle, source, tmp_path / "masks", "--json")[1])
        topic = {"image": "/c/compressed", "class_map": "/c/class_map", "label_info": "/c/label_info", "frames": 3}
        assert found["topics"] == [topic]
        masks = [entry.message for entry in bags.read_bag(tmp_path / "masks") if entry.kind == IMAGE]
        assert [(m.height, m.width, int(bags.pixels(m)[30, 10])) for m in masks] == [(60, 80, i) for i in range(3)]

    def test_json(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        source = write_bag(tmp_path / "drive", drive())
        found = json.loads(edgeseg("bag", bundle, source, tmp_path / "masks", "--json")[1])
        assert (found["output"], found["storage"]) == (str(tmp_path / "masks"), "mcap")
        assert (found["frames"], found["skipped"], found["backend"]) == (3, 0, "onnxruntime")
        assert found["fps"] > 0
        assert found["infer_ms"] > 0

    def test_several_topics(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        rear = [Entry("/rear", IMAGE, bags.image(picture(1), i * 100 + 20), i * 100 + 20) for i in range(2)]
        source = write_bag(tmp_path / "drive", sorted(drive() + rear, key=lambda entry: entry.time))
        code, _, err = edgeseg("bag", bundle, source, tmp_path / "masks")
        assert code == 2
        assert f"has 2 image topics; choose with --topic: {FRONT}, /rear" in err
        assert edgeseg("bag", bundle, source, tmp_path / "one", "--topic", "/rear")[0] == 0
        assert {e.topic for e in bags.read_bag(tmp_path / "one")} == {"/rear/class_map", "/rear/label_info"}
        assert edgeseg("bag", bundle, source, tmp_path / "two", "--topic", "/rear", "--topic", FRONT)[0] == 0
        masks = [e for e in bags.read_bag(tmp_path / "two") if e.kind == IMAGE]
        assert [e.time - START for e in masks] == [0, 20, 100, 120, 200]

    def test_broken_messages(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        entries = drive()
        entries[2].message.encoding = "16UC1"
        source = write_bag(tmp_path / "drive", entries)
        code, _, err = edgeseg("bag", bundle, source, tmp_path / "masks")
        assert code == 1
        assert f"{source}: {FRONT} message 2: the image has the encoding '16UC1', but edgeseg reads rgb8" in err
        assert err.rstrip().endswith("--skip-broken leaves such messages out")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["colours.edgeseg", "drive"]
        code, out, err = edgeseg("bag", bundle, source, tmp_path / "masks", "--skip-broken", "--json")
        assert code == 0
        assert (json.loads(out)["frames"], json.loads(out)["skipped"]) == (2, 1)
        assert f"skipped: {FRONT} message 2: the image has the encoding '16UC1'" in err

    def test_nothing_but_broken_messages(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        entries = [Entry(FRONT, IMAGE, bags.image(picture(0), encoding="16UC1"), 0)]
        code, _, err = edgeseg(
            "bag", bundle, write_bag(tmp_path / "drive", entries), tmp_path / "masks", "--skip-broken"
        )
        assert code == 1
        assert "none of the 1 images can be read" in err
        assert not (tmp_path / "masks").exists()


class TestBadBags:
    @pytest.fixture
    def refused(self, edgeseg: Run, bundle: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
        def run(source: Path, *arguments: object, code: int = 1) -> str:
            found, out, err = edgeseg("bag", bundle, source, tmp_path / "masks", *arguments)
            assert (found, out) == (code, "")
            assert err.startswith("edgeseg: error: ")
            assert err.count("\n") == 1
            assert not (tmp_path / "masks").exists()
            assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
            return str(err)

        return run

    def test_missing(self, refused, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        message = refused(tmp_path / "none")
        assert f"there is no bag at {tmp_path / 'none'}; give the folder that `ros2 bag record` made" in message

    def test_no_recording(self, refused, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        (tmp_path / "folder").mkdir()
        assert "has no metadata.yaml: it is no bag; repair a recording with: ros2" in refused(tmp_path / "folder")
        (tmp_path / "a.bag").write_bytes(b"#ROSBAG V2.0")
        assert "a.bag is no bag: expected a folder, or a file that ends in .mcap or .db3" in refused(tmp_path / "a.bag")

    def test_not_finished(self, refused, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        source = write_bag(tmp_path / "drive", drive())
        (source / "metadata.yaml").unlink()
        message = refused(source)
        assert "has no metadata.yaml: it is a recording that was not finished; repair" in message
        assert f"ros2 bag reindex {source}" in message

    def test_damaged_metadata(self, refused, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        source = write_bag(tmp_path / "drive", drive())
        for content in ("", "a: [", "rosbag2_bagfile_information: {version: 5}"):
            (source / "metadata.yaml").write_text(content)
            assert f"cannot read the bag {source}: " in refused(source)

    @pytest.mark.parametrize("share", [0, 0.3, 0.6, 0.97])
    def test_cut_short(self, refused, tmp_path: Path, storage: str, share: float) -> None:  # type: ignore[no-untyped-def]
        source = write_bag(tmp_path / "drive", drive(60), storage=storage)
        file = next(p for p in source.iterdir() if p.suffix in (".mcap", ".db3"))
        content = file.read_bytes()
        file.write_bytes(content[: int(share * len(content))])
        message = refused(source)
        assert f"cannot read the bag {source}: " in message
        assert "it is cut short or damaged, so copy it again, or repair it with ros2 bag reindex" in message

    def test_fewer_messages_than_announced(self, edgeseg: Run, bundle: Path, refused, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        source = write_bag(tmp_path / "drive", drive(), storage="sqlite3")
        with contextlib.closing(sqlite3.connect(source / "drive.db3")) as database, database:
            database.execute("DELETE FROM messages WHERE timestamp = ?", (START + 100,))
        assert f"{FRONT} has 3 messages, but only 2 can be found; copy the bag again, or leave" in refused(source)
        code, out, err = edgeseg("bag", bundle, source, tmp_path / "masks", "--skip-broken", "--json")
        assert (code, json.loads(out)["frames"], json.loads(out)["skipped"]) == (0, 2, 1)
        assert f"skipped: {source}: {FRONT} has 3 messages, but only 2 can be found" in err

    def test_without_messages(self, refused, tmp_path: Path, storage: str) -> None:  # type: ignore[no-untyped-def]
        source = write_bag(tmp_path / "drive", [], storage=storage, empty=((FRONT, IMAGE),))
        assert f"holds no message; its topics: {FRONT} (sensor_msgs/msg/Image)" in refused(source)

    def test_without_images(self, refused, tmp_path: Path, storage: str) -> None:  # type: ignore[no-untyped-def]
        source = write_bag(tmp_path / "drive", [chatter("a", 0)], storage=storage)
        message = refused(source)
        assert "has no image topic, which is sensor_msgs/msg/Image or sensor_msgs/msg/CompressedImage; " in message
        assert "it has: /chatter (std_msgs/msg/String)" in message

    def test_wrong_topics(self, refused, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        source = write_bag(tmp_path / "drive", drive())
        message = refused(source, "--topic", "/front/image_ray", code=2)
        assert f"unknown topic '/front/image_ray'; did you mean {FRONT}?" in message
        message = refused(source, "--topic", "/chatter", code=2)
        assert f"the topic /chatter of {source} holds no images; with images: {FRONT}" in message

    def test_without_rosbags(self, refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
        source = write_bag(tmp_path / "drive", drive())
        monkeypatch.setitem(sys.modules, "rosbags", None)
        assert (
            "rosbags is needed to read rosbag2 recordings, but it is not installed; run: pip install edgeseg[ros]"
            in (refused(source))
        )


class TestOutput:
    def test_only_a_bag_is_replaced(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        source, out = write_bag(tmp_path / "drive", drive()), tmp_path / "masks"
        out.mkdir()
        (out / "mine").write_text("x")
        code, _, err = edgeseg("bag", bundle, source, out)
        assert (code, "masks exists; choose another place or replace it with --force" in err) == (1, True)
        code, _, err = edgeseg("bag", bundle, source, out, "--force")
        assert (code, "exists and is not a bag, so --force does not replace it" in err) == (1, True)
        (out / "mine").rename(out / "metadata.yaml")
        assert edgeseg("bag", bundle, source, out, "--force")[0] == 0
        assert len(bags.read_bag(out)) == 4
        assert sorted(p.name for p in tmp_path.iterdir()) == ["colours.edgeseg", "drive", "masks"]

    def test_the_source_is_never_replaced(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        source = write_bag(tmp_path / "drive", drive())
        before = {p.name: p.read_bytes() for p in source.iterdir()}
        for given, out in ((source, source), (source / "drive.mcap", source), (source, source / "masks")):
            code, _, err = edgeseg("bag", bundle, given, out, "--force")
            assert (code, "is, holds or lies in the bag that is read; choose another place" in err) == (1, True)
        assert {p.name: p.read_bytes() for p in source.iterdir()} == before

    def test_no_folder(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        source = write_bag(tmp_path / "drive", drive())
        code, _, err = edgeseg("bag", bundle, source, tmp_path / "none" / "masks")
        assert (code, f"the folder {tmp_path / 'none'} does not exist; create it first" in err) == (1, True)

    def test_a_full_disk(self, edgeseg: Run, bundle: Path, tmp_path: Path, small_disk: Path, storage: str) -> None:
        rng = np.random.default_rng(0)
        entries = [Entry(FRONT, IMAGE, bags.image(rng.integers(0, 256, (300, 400, 3), np.uint8)), i) for i in range(30)]
        source = write_bag(tmp_path / "drive", entries, storage=storage)
        code, out, err = edgeseg("bag", bundle, source, small_disk / "masks", "--overlay")
        assert (code, out) == (1, "")
        assert f"cannot write {small_disk / 'masks'}: " in err
        assert "free some space" in err
        assert list(small_disk.iterdir()) == []
        gc.collect()  # SQLite keeps the file open for as long as the error's traceback holds a cursor

    def test_interrupted(self, bundle: Path, tmp_path: Path, cache: Path) -> None:
        source = write_bag(tmp_path / "drive", drive(3000))
        command = [sys.executable, "-m", "edgeseg", "bag", str(bundle), str(source), str(tmp_path / "masks")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while not list(tmp_path.glob(".masks.*")) and time.monotonic() < until and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (130, "", "edgeseg: interrupted\n")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["colours.edgeseg", "drive"]
