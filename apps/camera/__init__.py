"""The camera application: frames from any source, class maps in bounded time, and whatever shows them.

sources, platform   a URI as a GStreamer launch string     capture       frames out of a pipeline that may fail
live                one inference thread, the newest frame  statistics   frames, drops, latencies, reconnects
sinks               what is shown, written or sent          drawing      overlay, mask, side by side, legend
"""
