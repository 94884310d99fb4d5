"""The one adapter: every difference between versions of TensorRT stands in this folder and nowhere else.

- `library`: which library is there, and what its version can do; every capability is read from its names.
- `parsing`: from a graph to a network.
- `building`: from a network to a plan.
- `running`: from a plan to results.

Enumerations are taken by name and never by number, since numbers move between versions: bit 1 of a network's flags is
EXPLICIT_PRECISION in 8, STRONGLY_TYPED in 10 and PREFER_JIT_PYTHON_PLUGINS in 11. tests/edgeseg/backends/tensorrt holds
every name used here against the dumped names of seven versions.
"""
