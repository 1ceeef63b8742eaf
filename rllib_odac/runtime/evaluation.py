"""What evaluations on held-out goals give, and what becomes of those that fail.

What goes wrong in an evaluation costs that evaluation and not the run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_EPISODES

from rllib_odac.metrics import FIGURES
from rllib_odac.runtime.evaluator import Evaluation, Evaluator
from rllib_odac.runtime.faults import EvaluationLostError, StepAccounting

logger = logging.getLogger(__name__)


class Evaluations:
    """The evaluations of a run: figures of the newest one, and what became of the others.

    Args:
        evaluator: Makes them.
        accounting: Where lost ones are counted.
        on_start: Called when one begins beside training.
        on_end: Called with each of these that has ended, lost or not.

    Attributes:
        figures: Of the newest that was not lost, with the `env_steps` that it began at; NaN as
            long as all were lost.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        accounting: StepAccounting,
        on_start: Callable[[], object],
        on_end: Callable[[Evaluation], object],
    ) -> None:
        self._evaluator = evaluator
        self._accounting = accounting
        self._on_start = on_start
        self._on_end = on_end
        self._is_first = True
        self.figures: dict[str, Any] = {}

    @property
    def env_steps(self) -> int | None:
        """Environment steps at the beginning of the evaluation under way; None if there is none."""
        return self._evaluator.env_steps

    def begin(self, env_steps: int, num_episodes: int) -> None:
        """Begins one beside training, unless the last still goes on.

        The first is waited for: it shows what is wrong with an environment.

        Raises:
            Exception: What an environment raised in the first.
        """
        self.look()
        if self._evaluator.env_steps is None:
            self._on_start()
            self._evaluator.start(env_steps, num_episodes)
            self._take(self._evaluator.finish() if self._is_first else self._evaluator.poll())

    def look(self) -> None:
        """Takes in the one under way, if it has ended."""
        self._take(self._evaluator.poll())

    def now(self, env_steps: int, num_episodes: int, seed: int) -> dict[str, float]:
        """Makes one and waits for its figures, after the one under way.

        Raises:
            EvaluationLostError: If env runners die again and again, or stall.
            Exception: Any that an environment raised.
        """
        self._take(self._evaluator.finish())
        self._evaluator.start(env_steps, num_episodes, seed)
        evaluation = self._evaluator.finish()
        assert evaluation is not None
        if evaluation.figures is None:
            raise evaluation.error or RuntimeError
        return evaluation.figures

    def _take(self, evaluation: Evaluation | None) -> None:
        if evaluation is None:
            return
        is_first, self._is_first = self._is_first, False
        if evaluation.figures is None:
            self._accounting.counters.evaluations_lost += 1
            if is_first and not isinstance(evaluation.error, EvaluationLostError):
                raise evaluation.error or RuntimeError
            logger.warning(
                "The evaluation at %d environment steps is lost. %s",
                evaluation.env_steps,
                evaluation.error,
            )
        if evaluation.figures is not None or not self.figures:
            figures = evaluation.figures or dict.fromkeys(FIGURES, math.nan)
            self.figures = figures | {"env_steps": evaluation.env_steps}
        self._on_end(evaluation)


def rllib_results(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of an evaluation under RLlib's names."""
    renamed = {NUM_EPISODES if n == "num_episodes" else n: v for n, v in figures.items()}
    return {ENV_RUNNER_RESULTS: renamed}
