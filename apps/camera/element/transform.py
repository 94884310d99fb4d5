"""The class that GStreamer sees: properties, caps, events and buffers, handed to the stage."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edgeseg.apps.camera.element.analytics import analytics, attach
from edgeseg.apps.camera.element.messages import Ticker, post_error, stats_structure
from edgeseg.apps.camera.element.pixels import FORMATS, MATRICES, FrameLayout
from edgeseg.apps.camera.element.settings import ElementSettings, properties
from edgeseg.apps.camera.element.stage import Counts, Stage
from edgeseg.apps.camera.gst import gstreamer, mapped
from edgeseg.errors import EngineError

__all__ = ["element_class"]

METADATA = (
    "Semantic segmentation",
    "Filter/Effect/Video",
    "Segments frames with an edgeseg bundle and draws the class map on them, in place",
    "edgeseg",
)


class _Worker:
    """What one element keeps between GStreamer's calls; all but the properties belongs to the streaming thread."""

    def __init__(self, element: Any) -> None:
        self.gst = gstreamer()
        self.element = element
        self.settings = ElementSettings()
        self.changed = False
        self.stage: Stage | None = None
        self.layout: FrameLayout | None = None
        self.counts = Counts()
        self.earliest: int | None = None
        self.ticker = Ticker(element)

    def start(self) -> None:
        """Load the bundle, before the first frame."""
        self.changed = False
        self.stage = Stage(self.settings)
        self.counts, self.ticker, self.earliest = self.stage.counts, Ticker(self.element), None
        self._choose_passthrough(self.stage)

    def stop(self) -> None:
        """Give the bundle back; the counts stay readable."""
        stage, self.stage = self.stage, None
        if stage is not None:
            stage.close()

    def set_property(self, name: str, value: Any) -> None:
        """Take a property; it counts from the next frame on."""
        changes: dict[str, Any] = {name.replace("-", "_"): "" if value is None else value}
        self.settings = replace(self.settings, **changes)
        self.changed = True

    def get_property(self, name: str) -> Any:
        """A property's value."""
        if name == "stats":
            return stats_structure(self.counts)
        if name == "segmentation":
            return self.stage.last if self.stage is not None else None
        return getattr(self.settings, name.replace("-", "_"))

    def set_caps(self, caps: Any) -> None:
        """Frames have these caps from now on."""
        info = self.gst.GstVideo.VideoInfo.new_from_caps(caps)
        planes, matrix = info.finfo.n_planes, info.colorimetry.matrix.value_nick
        self.layout = FrameLayout(
            info.finfo.name,
            info.height,
            info.width,
            tuple(info.offset[:planes]),
            tuple(info.stride[:planes]),
            matrix if matrix in MATRICES else "bt601",
            info.colorimetry.range.value_nick == "0-255",
        )
        if self.stage is not None:
            self.stage.resize(self.layout)

    def buffer(self, buffer: Any) -> None:
        """Segment and draw, in place."""
        if self.stage is None or self.layout is None:
            raise EngineError("a frame came before its caps; the element before edgeseg is at fault")
        writable = not self.element.is_passthrough()
        if self.changed:
            self.changed = False
            self.stage.change(self.settings)
            self._choose_passthrough(self.stage)
        layout, late = self._layout_of(buffer, self.layout), self._is_late(buffer.pts)
        draw = writable and self.stage.draws
        with mapped(buffer, write=draw) as data:
            result = self.stage.frame(data, layout, late=late, draw=draw)
        if result is not None:
            library = analytics() if writable else None
            if library is not None:
                attach(library, buffer, result)
            self.element.emit("segmented", result, buffer.pts)
        self.ticker.tick(self.counts)

    def downstream(self, event: Any) -> None:
        """Look at an event that goes with the frames."""
        if event.type == self.gst.Gst.EventType.EOS:
            self.ticker.tick(self.counts, now=True)
        elif event.type in (self.gst.Gst.EventType.FLUSH_STOP, self.gst.Gst.EventType.SEGMENT):
            self.earliest = None

    def upstream(self, event: Any) -> None:
        """Look at an event that comes from the sink: quality of service says how late the frames are.

        A frame that would be as late as the last one is late, as gstbasetransform.c has it.
        """
        if event.type == self.gst.Gst.EventType.QOS:
            _, _, late_by, timestamp = event.parse_qos()
            self.earliest = max(0, timestamp + late_by)

    def _is_late(self, pts: int) -> bool:
        if self.earliest is None or pts == self.gst.Gst.CLOCK_TIME_NONE:
            return False
        running = self.element.segment.to_running_time(self.gst.Gst.Format.TIME, pts)
        return bool(running != self.gst.Gst.CLOCK_TIME_NONE and running <= self.earliest)

    def _layout_of(self, buffer: Any, layout: FrameLayout) -> FrameLayout:
        """The layout with the offsets and strides of this buffer, which pools and hardware choose as they like."""
        meta = self.gst.GstVideo.buffer_get_video_meta(buffer)
        if meta is None:
            return layout
        count = len(layout.strides)
        offsets, strides = tuple(meta.offset[:count]), tuple(meta.stride[:count])
        if (offsets, strides) == (layout.offsets, layout.strides):
            return layout
        return replace(layout, offsets=offsets, strides=strides)

    def _choose_passthrough(self, stage: Stage) -> None:
        """Frames that nothing is written to are not copied where somebody else holds them too."""
        attaches = self.settings.enabled and analytics() is not None
        self.element.set_passthrough(not (stage.draws or attaches))


@functools.cache
def element_class() -> Any:
    """The class to register; it exists only where GStreamer does."""
    gst = gstreamer()
    Gst, Base = gst.Gst, gst.GstBase.BaseTransform  # noqa: N806 - the module's own names
    caps = Gst.Caps.from_string(f"video/x-raw, format={{ {', '.join(FORMATS)} }}")

    class EdgesegElement(Base):  # type: ignore[misc, valid-type]
        """See `edgeseg.apps.camera.element`."""

        __gtype_name__ = "GstEdgeseg"  # without Gst and in lower case, elements are named after it
        __gstmetadata__ = METADATA
        __gsttemplates__ = tuple(
            Gst.PadTemplate.new(name, direction, Gst.PadPresence.ALWAYS, caps)
            for name, direction in (("sink", Gst.PadDirection.SINK), ("src", Gst.PadDirection.SRC))
        )
        __gproperties__ = properties(gst)
        __gsignals__ = {  # noqa: RUF012 - PyGObject reads it once
            "segmented": (gst.GObject.SignalFlags.RUN_LAST, None, (object, gst.GObject.TYPE_UINT64))
        }

        def __init__(self) -> None:
            super().__init__()
            self.worker = _Worker(self)
            self.set_in_place(True)
            # Frames that come late pass without inference; the base class would drop them.
            self.set_qos_enabled(False)

        def do_get_property(self, prop: Any) -> Any:
            return self.worker.get_property(prop.name)

        def do_set_property(self, prop: Any, value: Any) -> None:
            self.worker.set_property(prop.name, value)

        def do_start(self) -> bool:
            return self._tried(self.worker.start)

        def do_stop(self) -> bool:
            return self._tried(self.worker.stop)

        def do_set_caps(self, caps: Any, _: Any) -> bool:
            return self._tried(self.worker.set_caps, caps)

        def do_transform_ip(self, buffer: Any) -> Any:
            return Gst.FlowReturn.OK if self._tried(self.worker.buffer, buffer) else Gst.FlowReturn.ERROR

        def do_sink_event(self, event: Any) -> bool:
            return self._tried(self.worker.downstream, event) and bool(Base.do_sink_event(self, event))

        def do_src_event(self, event: Any) -> bool:
            return self._tried(self.worker.upstream, event) and bool(Base.do_src_event(self, event))

        def _tried(self, call: Callable[..., None], *arguments: Any) -> bool:
            """Whether a call went well. PyGObject would print any exception and go on as if nothing had happened."""
            try:
                call(*arguments)
            except Exception as error:
                post_error(self, error)
                return False
            return True

    return EdgesegElement
