"""What a person sees of a sweep while it runs: a line for each trial that ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ray.tune import Callback


class Progress(Callback):
    """Tells of ended trials.

    It is stored with the experiment; what it tells goes through `tell`, set by each process anew.

    Args:
        metric: The figure that is optimised.
        number: Trials in all; some searchers make them one by one.
    """

    tell: ClassVar[list[Callable[[str], None]]] = []  # one, while a sweep runs

    def __init__(self, metric: str, number: int) -> None:
        self._metric = metric
        self._number = number

    def on_trial_complete(
        self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any
    ) -> None:
        """A trial has reached its end, or a scheduler has ended it."""
        result = trial.last_result or {}
        ending = "" if result.get("finished") else ", stopped early"
        self._tell(
            f"{self._ended(trials, trial)} {trial}: success {result.get('success_rate', 0):.0%}, "
            f"{self._metric} {result.get(self._metric, float('nan')):.4g} after "
            f"{result.get('env_steps', 0)} steps{ending}"
        )

    def on_trial_recover(
        self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any
    ) -> None:
        """A trial has failed and is retried from its newest checkpoint."""
        self._tell(f"{self._ended(trials)} {trial}: failed, tried again from its newest checkpoint")

    def on_trial_error(
        self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any
    ) -> None:
        """A trial has failed too often."""
        self._tell(f"{self._ended(trials, trial)} {trial}: failed")

    def _tell(self, line: str) -> None:
        for tell in self.tell:
            tell(line)

    def _ended(self, trials: Sequence[Any], ending: Any = None) -> str:
        # Tune calls before it notes the end.
        ended = sum(trial is ending or trial.is_finished() for trial in trials)
        return f"{ended}/{self._number}"
