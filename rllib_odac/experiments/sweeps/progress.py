"""What a person sees of a sweep while it runs: a line for each trial that ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ray.tune import Callback


class Progress(Callback):
    """Reports trials that end.

    Tune pickles it with the experiment, so each process sets `report` and `number` anew, on the
    class.

    Args:
        metric: The figure that is optimised.
    """

    report: ClassVar[Callable[[str], None]] = print
    number: ClassVar[int] = 0  # of trials in all; some searchers make them one by one

    def __init__(self, metric: str) -> None:
        self._metric = metric

    def on_trial_complete(
        self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any
    ) -> None:
        """Reports the figures of a trial that has reached its end or was stopped."""
        result = trial.last_result or {}
        self._line(
            trials,
            trial,
            f"success {result.get('success_rate', 0):.0%}, {self._metric} "
            f"{result.get(self._metric, float('nan')):.4g} after {result.get('env_steps', 0)} steps"
            + ("" if result.get("finished") else ", stopped early"),
        )

    def on_trial_recover(
        self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any
    ) -> None:
        """Reports a trial that has failed and is retried."""
        self._line(trials, trial, "failed, tried again from its newest checkpoint", has_ended=False)

    def on_trial_error(
        self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any
    ) -> None:
        """Reports a trial that has failed too often."""
        self._line(trials, trial, "failed")

    def _line(self, trials: Sequence[Any], trial: Any, text: str, has_ended: bool = True) -> None:
        # Tune calls before it marks the trial as ended.
        ended = sum(one.is_finished() or (has_ended and one is trial) for one in trials)
        type(self).report(f"{ended}/{self.number} {trial}: {text}")
