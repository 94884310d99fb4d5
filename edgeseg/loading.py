"""A bundle opened on an engine: which backend, and from where the engine comes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgeseg import engine_cache
from edgeseg.backends import BundleBackend, Engine, Target, get_backend
from edgeseg.bundle import MODEL, Bundle
from edgeseg.environment import read_environment
from edgeseg.errors import UsageError
from edgeseg.segmenter import Segmenter
from edgeseg.selection import choose_backend

__all__ = ["load"]


def load(
    path: str | Path,
    *,
    backend: str = "auto",
    threads: int | None = None,
    precision: Literal["auto", "float32"] = "auto",
    build: bool | None = None,
    plan: str | Path | None = None,
) -> Segmenter:
    """Open a bundle and make its engine ready, from the bundle or the cache where it was built before.

    Args:
        path: the bundle's folder.
        backend: a name of `edgeseg.backends.BACKENDS`, or "auto": EDGESEG_BACKEND, else TensorRT where it and a GPU
            are here, else the faster of the others, timed once per machine, bundle and library version.
        threads: CPU threads of the engine; None for all that this process may use. It means nothing to a GPU.
        precision: see `Target.precision`.
        build: for TensorRT, whether to build an engine where the bundle has none for this device, which takes minutes,
            once; None for yes on a Jetson.
        plan: for TensorRT, the file of an engine that `edgeseg build -o` wrote; None for the one in the bundle.

    Raises:
        BundleError: for a bundle that cannot be trusted or does not fit its graph.
        UsageError: for an unknown backend, a number of threads below one, or a plan for a backend that has none.
        MissingDependencyError: when the backend's library, or every backend's, is missing.
        EngineError: when the graph does not compile, or there is no engine for this device.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, but is {threads}; leave it out for all processors")
    bundle = Bundle.open(path)
    target = Target(threads=threads, precision=precision)
    model, digest = bundle.read_model(), bundle.manifest.files[MODEL]
    asked = read_environment().backend if backend == "auto" else backend
    chosen = get_backend(asked) if asked else choose_backend(model, digest, target)

    if plan is not None and not isinstance(chosen, BundleBackend):
        raise UsageError(
            f"plan is an engine of TensorRT's, but the backend is {chosen.name}; choose the backend tensorrt"
        )

    def make(target: Target) -> Engine:
        if isinstance(chosen, BundleBackend):
            return chosen.load_bundle(bundle, target, build=build, plan=None if plan is None else Path(plan))
        return engine_cache.engine(chosen, model, digest, target)

    return Segmenter(bundle, chosen, make, target)
