"""What faults cost a run: accounts that add up, and the errors that end it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rllib_odac.runtime.env_runner_requests import Sample


class InterruptedRun(Exception):
    """Training was asked to stop, between two steps of it."""


class EnvRunnersLostError(RuntimeError):
    """No env runner collects any more."""


class EvaluationLostError(RuntimeError):
    """An evaluation has no result, for want of time or of env runners."""


@dataclass
class FaultCounters:
    """What a run has lost since its beginning, checkpoints that it went on from included.

    All environment steps are accounted for: `env_steps` are those in the replays (or once there),
    those of episodes that are going on, `env_steps_lost` and `env_steps_dropped`.

    Attributes:
        env_runners_lost: Times that an env runner was found dead.
        env_runners_stalled: Times that one did not answer for so long that it was restarted.
        env_steps_lost: Steps in `env_steps` that no replay got: of episodes that went on when their
            env runner died or its environment failed, and of those lost on their way.
        env_steps_missed: Steps, at most, that were asked of env runners that died: not counted in
            `env_steps`, and in no replay.
        env_steps_dropped: Steps of episodes that were going on when a checkpoint was saved in the
            same process, or restored.
        evaluations_lost: Evaluations that gave no result.
    """

    env_runners_lost: int = 0
    env_runners_stalled: int = 0
    env_steps_lost: int = 0
    env_steps_missed: int = 0
    env_steps_dropped: int = 0
    evaluations_lost: int = 0


class StepAccounting:
    """Follows what became of every environment step that has been counted.

    An env runner says with every sample what it has made, what it hands over and what is going on.
    What is missing then was dropped with its environment, or with a predecessor of the env runner.
    """

    def __init__(self) -> None:
        self.counters = FaultCounters()
        self._unfinished: dict[int, int] = {}  # steps of episodes going on, of each env runner

    @property
    def unfinished(self) -> int:
        """Steps counted that belong to episodes that are going on."""
        return sum(self._unfinished.values())

    def add(self, sample: Sample) -> None:
        """Enters what an env runner says of itself."""
        had = self._unfinished.get(sample.runner, 0)
        has = had + sample.env_steps - sample.transitions
        self.counters.env_steps_lost += has - sample.unfinished_steps
        self._unfinished[sample.runner] = sample.unfinished_steps

    def env_runner_died(self, runner: int) -> None:
        """Enters the loss of an env runner, with the episodes that were going on there."""
        self.counters.env_runners_lost += 1
        self.counters.env_steps_lost += self._unfinished.pop(runner, 0)

    def drop_unfinished(self) -> None:
        """Enters that all episodes that were going on have been given up for a checkpoint."""
        self.counters.env_steps_dropped += self.unfinished
        self._unfinished.clear()

    def state(self) -> dict[str, int]:
        """The losses of a run that goes on from a checkpoint made now."""
        losses = asdict(self.counters)
        losses["env_steps_dropped"] += self.unfinished
        return losses

    def restore(self, state: Mapping[str, int]) -> None:
        """Takes over what `state` gave."""
        self.counters = FaultCounters(**state)
        self._unfinished.clear()
