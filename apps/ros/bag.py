"""Images out of a rosbag2 recording (MCAP or SQLite), as frames that keep their message's header and time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.ros.cdr import CDRMessages, import_rosbags
from edgeseg.apps.ros.messages import IMAGE_KINDS, frame_of
from edgeseg.errors import FrameError, UsageError, unknown_name

__all__ = ["BagFrame", "ImageBag", "ImageTopic"]

_log = logging.getLogger(__name__)
_METADATA = "metadata.yaml"
_FILES = {".mcap": "mcap", ".db3": "sqlite3"}


@dataclass(frozen=True)
class ImageTopic:
    """A topic that is segmented: its name, its message type and its number of messages."""

    name: str
    kind: str
    count: int


@dataclass(frozen=True, eq=False)
class BagFrame:
    """An image of a recording.

    Attributes:
        name: topic and number of the message in it, for messages to a person.
        image: (H, W, 3) uint8 RGB.
        topic: name of its topic.
        header: of its message, with stamp and frame_id.
        time: when it was recorded, ns since 1970.
    """

    name: str
    image: NDArray[np.uint8]
    topic: str
    header: Any
    time: int


class ImageBag:
    """Image topics of a recording, opened as a context; iterated once, in the order of recording.

    Args:
        path: the folder of a recording, or its .mcap or .db3 file.
        topics: names of the image topics to take; none for the only one.
        skip_broken: leave out messages that cannot be read, with a warning in the log.

    Raises:
        FrameError: for a bag that is missing, empty, cut short or damaged, or has no image topic.
        UsageError: for a topic that is not there or holds no images, or several image topics of which none is chosen.
    """

    def __init__(self, path: Path, topics: Sequence[str] = (), *, skip_broken: bool = False) -> None:
        import_rosbags("read rosbag2 recordings")
        _check(path)
        self.path = path
        self.skipped = 0
        self._skip_broken = skip_broken
        self._messages = CDRMessages()
        from rosbags.rosbag2 import Reader

        try:
            self._reader = Reader(path)
            self._reader.open()
        except Exception as error:  # rosbags lets through errors of YAML, SQLite, struct and its own
            raise _broken(path, error) from error
        try:
            self.topics = self._choose(topics)
        except BaseException:
            self._reader.close()
            raise

    @property
    def storage(self) -> str:
        """How it is stored: "mcap" or "sqlite3"."""
        if self.path.is_file():
            return _FILES[self.path.suffix]
        return "mcap" if list(self.path.glob("*.mcap*")) else "sqlite3"

    def __len__(self) -> int:
        return sum(topic.count for topic in self.topics)

    def __iter__(self) -> Iterator[BagFrame]:
        """Read, in the order of recording.

        Raises:
            FrameError: for a bag that is cut short, and for a message that cannot be read; with `skip_broken` only when
                none can.
        """
        chosen = [c for c in self._reader.connections if c.topic in {topic.name for topic in self.topics}]
        messages = iter(self._reader.messages(chosen))
        counts = dict.fromkeys((topic.name for topic in self.topics), 0)
        while (entry := self._next(messages)) is not None:
            connection, time, content = entry
            counts[connection.topic] += 1
            name = f"{connection.topic} message {counts[connection.topic]}"
            try:
                message, image = self._decode(content, connection.msgtype)
            except FrameError as error:
                if not self._skip_broken:
                    raise FrameError(f"{self.path}: {name}: {error}; --skip-broken leaves such messages out") from error
                self.skipped += 1
                _log.warning("skipped: %s: %s", name, error)
                continue
            yield BagFrame(name, image, connection.topic, message.header, time)
        if sum(counts.values()) == self.skipped:
            raise FrameError(f"{self.path}: none of the {len(self)} images can be read")
        self._count_missing(counts)

    def __enter__(self) -> ImageBag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()

    def _count_missing(self, counts: dict[str, int]) -> None:
        """Compare what was read with what the recording announces: a cut one may end without an error."""
        for topic in self.topics:
            missing = topic.count - counts[topic.name]
            if missing <= 0:
                continue
            found = f"{self.path}: {topic.name} has {topic.count} messages, but only {counts[topic.name]} can be found"
            if not self._skip_broken:
                raise FrameError(f"{found}; copy the bag again, or leave them out with --skip-broken")
            self.skipped += missing
            _log.warning("skipped: %s", found)

    def _choose(self, names: Sequence[str]) -> tuple[ImageTopic, ...]:
        everything = {name: (info.msgtype or "several types", info.msgcount) for name, info in self._topics().items()}
        images = {name: entry for name, entry in everything.items() if entry[0] in IMAGE_KINDS and entry[1]}
        listed = ", ".join(f"{name} ({kind})" for name, (kind, _) in sorted(everything.items())) or "none"
        if not self._reader.message_count:
            raise FrameError(f"the bag {self.path} holds no message; its topics: {listed}")
        if not images:
            raise FrameError(
                f"the bag {self.path} has no image topic, which is {' or '.join(IMAGE_KINDS)}; it has: {listed}"
            )
        if not names and len(images) > 1:
            raise UsageError(
                f"the bag {self.path} has {len(images)} image topics; choose with --topic: {', '.join(sorted(images))}"
            )
        for name in names:
            if name not in everything:
                raise UsageError(f"the bag {self.path}: {unknown_name('topic', name, images)}")
            if name not in images:
                raise UsageError(f"the topic {name} of {self.path} holds no images; with images: {', '.join(images)}")
        return tuple(ImageTopic(name, *images[name]) for name in dict.fromkeys(names or images))

    def _topics(self) -> dict[str, Any]:
        return dict(self._reader.topics)

    def _next(self, messages: Iterator[Any]) -> Any:
        try:
            return next(messages, None)
        except Exception as error:  # as above; here a file that ends in its middle shows
            raise _broken(self.path, error) from error

    def _decode(self, content: bytes, kind: str) -> tuple[Any, NDArray[np.uint8]]:
        try:
            message = self._messages.read(content, kind)
        except Exception as error:  # as above: struct, ValueError, AssertionError, UnicodeDecodeError
            raise FrameError(f"the message is no {kind}: {_reason(error)}") from error
        return message, frame_of(message, kind)


def _check(path: Path) -> None:
    """Refuse what is no finished recording, with the command that finishes one."""
    try:
        if not path.exists():
            raise FrameError(
                f"there is no bag at {path}; give the folder that `ros2 bag record` made, or its .mcap or .db3 file"
            )
        if path.is_dir() and not (path / _METADATA).is_file():
            what = "a recording that was not finished" if _storage_files(path) else "no bag"
            raise FrameError(
                f"the folder {path} has no {_METADATA}: it is {what}; repair a recording with: ros2 bag reindex {path}"
            )
    except OSError as error:
        raise FrameError(f"cannot read the bag {path}: {error.strerror}") from error
    if path.is_file() and path.suffix not in _FILES:
        raise FrameError(f"{path} is no bag: expected a folder, or a file that ends in {' or '.join(_FILES)}")


def _storage_files(folder: Path) -> list[Path]:
    return [file for suffix in _FILES for file in folder.glob(f"*{suffix}*")]


def _broken(path: Path, error: Exception) -> FrameError:
    return FrameError(
        f"cannot read the bag {path}: {_reason(error)}; it is cut short or damaged, so copy it again, or repair it "
        "with ros2 bag reindex or mcap recover"
    )


def _reason(error: Exception) -> str:
    """What a foreign error says, on one line and without its full stop; its kind where it says nothing."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
