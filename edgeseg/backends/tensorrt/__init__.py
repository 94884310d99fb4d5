"""TensorRT and TensorRT-RTX: engines built in a child process, proven to be INT8, and run.

`versions` is the one adapter: every difference between TensorRT 8.5 to 11 and TensorRT-RTX stands there. Nothing here
imports either library before it is used.
"""
