"""A bounded, ordered pipeline: one thread pulls items from a source, several work on them, the caller takes results."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["ordered"]

Item = TypeVar("Item")
Result = TypeVar("Result")
_POLL = 0.05
_PATIENCE = 5.0


def ordered(source: Iterable[Item], work: Callable[[Item, int, float], Result], workers: int) -> Iterator[Result]:
    """Work on items in parallel and give the results in the order of the items.

    At most 2 * `workers` + 1 items exist between the source and the caller. An exception of the source or of `work`
    is raised in its item's place, after the results before it.

    Args:
        source: iterated once, in a thread of its own.
        work: called in worker threads with the item, its number from 0, and the ms that the source took for it.
        workers: items worked on at once.
    """
    stop = threading.Event()
    results: queue.Queue[Future[Any] | None] = queue.Queue(maxsize=2 * workers)
    with ThreadPoolExecutor(workers, thread_name_prefix="edgeseg-worker") as pool:
        feeder = threading.Thread(
            target=_feed, args=(source, work, pool, results, stop), name="edgeseg-source", daemon=True
        )
        feeder.start()
        try:
            while (future := results.get()) is not None:
                yield future.result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            feeder.join(_PATIENCE)


def _feed(
    source: Iterable[Item],
    work: Callable[[Item, int, float], Result],
    pool: ThreadPoolExecutor,
    results: queue.Queue[Future[Any] | None],
    stop: threading.Event,
) -> None:
    """Pull, submit and queue until the source ends, fails, or the caller has left."""
    iterator: Iterator[Item] | None = None
    try:
        iterator = iter(source)
        started = time.perf_counter()
        for number, item in enumerate(iterator):
            if stop.is_set():
                return
            future = pool.submit(work, item, number, 1e3 * (time.perf_counter() - started))
            if not _put(results, future, stop):
                return
            started = time.perf_counter()
        _put(results, None, stop)
    except BaseException as error:  # a worker thread must not swallow anything: the caller raises it
        failed: Future[Any] = Future()
        failed.set_exception(error)
        _put(results, failed, stop)
    finally:
        # An iterator made here is closed here, so that a half-read video is released; the caller's own is not.
        if iterator is not None and iterator is not source and hasattr(iterator, "close"):
            iterator.close()


def _put(results: queue.Queue[Future[Any] | None], future: Future[Any] | None, stop: threading.Event) -> bool:
    """Wait for a free place, but not longer than the caller does."""
    while not stop.is_set():
        try:
            results.put(future, timeout=_POLL)
        except queue.Full:
            continue
        return True
    return False
