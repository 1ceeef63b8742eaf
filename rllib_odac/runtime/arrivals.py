"""`Arrivals`: the results of remote calls in the order in which they come about.

`ray.wait` looks at every reference that is waited for, each time; with a thousand env runners that
is most of what a driver does. Here Ray tells of each result once.
"""

from __future__ import annotations

import queue
from concurrent.futures import Future
from typing import Any

import ray


class Arrivals:
    """Tells which references have come about, and what came of them."""

    def __init__(self) -> None:
        self._futures: dict[ray.ObjectRef, Future[Any]] = {}
        self._queue: queue.SimpleQueue[ray.ObjectRef] = queue.SimpleQueue()

    def expect(self, reference: ray.ObjectRef) -> None:
        """Tells of this reference when it comes about, with a result or an error."""
        self._futures[reference] = reference.future()
        # Called by a thread of Ray's, which must do no more than this.
        self._futures[reference].add_done_callback(lambda _: self._queue.put(reference))

    def take(self, timeout_s: float) -> list[ray.ObjectRef]:
        """Those that have come about since the last time, as soon as there is one or time is up."""
        taken = []
        try:
            taken.append(self._queue.get(timeout=timeout_s))
            while True:
                taken.append(self._queue.get_nowait())
        except queue.Empty:
            return taken

    def again(self, reference: ray.ObjectRef) -> None:
        """Tells of a reference once more, which nobody has taken note of."""
        self._queue.put(reference)

    def result(self, reference: ray.ObjectRef) -> Any:
        """What came of a reference, once; without another copy, as `ray.get` would make.

        Raises:
            Exception: If it is an error, as `ray.get` does.
        """
        return self._futures.pop(reference).result()

    def forget(self, reference: ray.ObjectRef) -> None:
        """Gives up a reference that nobody asks for any more."""
        self._futures.pop(reference, None)
