"""`FailuresSinceProgress`: how often a trial may fail is counted from its newest checkpoint on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.tune import Callback

from rllib_odac.ray_compat import forget_failures


class FailuresSinceProgress(Callback):
    """Lets a long trial outlive any number of failures, as long as it gets on between them.

    Tune counts those of its whole life: on machines that are taken away it would give up a trial
    that has always gone on.
    """

    def on_checkpoint(
        self, iteration: int, trials: Sequence[Any], trial: Any, checkpoint: Any, **info: Any
    ) -> None:
        """A checkpoint has been stored."""
        forget_failures(trial)
