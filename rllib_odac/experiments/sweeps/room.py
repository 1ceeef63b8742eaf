"""`RoomInTime`: a sweep whose trials find no place ends with a sentence, not never."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ray.tune import Callback

from rllib_odac.runtime.cluster import Processes, no_room_in_time, room_timeout_s


class RoomInTime(Callback):
    """Ends a sweep when no trial has run for `room_timeout_s` and the cluster can hold none.

    There was room for one when the sweep began, but nodes may be taken away for good. Tune would
    only warn.

    Args:
        wanted: The processes of one trial.
    """

    def __init__(self, wanted: Sequence[Processes]) -> None:
        self._wanted = wanted
        self._waits_since: float | None = None

    def setup(self, stop: Any = None, num_samples: Any = None, **info: Any) -> None:
        """Begins anew, also where Tune has read it from a sweep that was interrupted."""
        self._waits_since = None

    def on_step_begin(self, iteration: int, trials: Sequence[Any], **info: Any) -> None:
        """Called ten times a second.

        Raises:
            ValueError: If no trial has found a place in time.
        """
        statuses = {trial.status for trial in trials}
        if "RUNNING" in statuses or "PENDING" not in statuses:
            self._waits_since = None
            return
        now = time.monotonic()
        if self._waits_since is None:
            self._waits_since = now
        elif now - self._waits_since > room_timeout_s():
            if (no_room := no_room_in_time(self._wanted)) is not None:
                raise no_room
            self._waits_since = None
