"""`Revivals`: which of the actors that have died are alive again."""

from __future__ import annotations

from collections.abc import Iterable

import ray
from ray.exceptions import RayError
from ray.rllib.utils.actor_manager import FaultTolerantActorManager

from rllib_odac.runtime.learner_calls import wait


class Revivals:
    """Asks actors that have died whether Ray has restarted them, without waiting for an answer.

    RLlib would ask each of them at every step and wait half a minute for the answer, with all else
    at rest.

    Args:
        manager: Of the actors.
    """

    def __init__(self, manager: FaultTolerantActorManager) -> None:
        self._manager = manager
        self._pings: dict[int, ray.ObjectRef] = {}

    def of(self, dead: Iterable[int]) -> list[int]:
        """Those of the dead actors, by their numbers, that have answered since they were asked."""
        for number in dead:
            if number not in self._pings:
                self._pings[number] = self._manager.actors()[number].ping.remote()
        alive = []
        for reference in wait(list(self._pings.values()), timeout_s=0):
            number = next(key for key, ping in self._pings.items() if ping == reference)
            del self._pings[number]
            try:
                ray.get(reference)
            except RayError:
                continue
            alive.append(number)
        return alive
