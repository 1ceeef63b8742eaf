"""`Evaluator`: deterministic episodes on held-out goals, beside training where others make them.

An env runner that dies has its share made up for by others, one that stalls is restarted after a
deadline, and what an environment raises is reported.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_odac.env_runner import TRAINING_SEEDS, GoalEnvRunner
from rllib_odac.ray_compat import env_runner_manager, is_dead
from rllib_odac.runtime.faults import EvaluationLostError
from rllib_odac.runtime.learner_calls import picklable, wait
from rllib_odac.runtime.revivals import Revivals

MOST_DEATHS = 3  # of env runners in one evaluation, after which it is given up

Episodes = dict[str, np.ndarray[Any, Any]]

logger = logging.getLogger(__name__)


def summarize(episodes: Episodes) -> dict[str, float]:
    """Means over evaluation episodes.

    Args:
        episodes: (N,) arrays as `GoalEnvRunner.evaluate` returns them.

    Returns:
        `success_rate` in [0, 1], `final_distance` in the task's units, `normalized_distance`
        (100 · final / initial, of the means), `episode_return`, `episode_length` and
        `num_episodes`.
    """
    final, initial = episodes["final_distance"].mean(), episodes["initial_distance"].mean()
    return {
        "success_rate": float(episodes["success"].mean()),
        "final_distance": float(final),
        "normalized_distance": float(100 * final / initial) if initial > 0 else 0.0,
        "episode_return": float(episodes["episode_return"].mean()),
        "episode_length": float(episodes["episode_length"].mean()),
        "num_episodes": len(episodes["success"]),
    }


def held_out_seeds(num_episodes: int, seed: int = 0) -> list[int]:
    """Environment seeds that training never uses; each `seed` names another million of them."""
    first = TRAINING_SEEDS + seed * 1_000_000
    return list(range(first, first + num_episodes))


@dataclass(frozen=True)
class Evaluation:
    """An evaluation that has ended.

    Attributes:
        env_steps: Environment steps when it began: it judges the policy of that time.
        figures: As `summarize` gives them; None if it was lost.
        error: Why it was lost.
    """

    env_steps: int
    figures: dict[str, float] | None = None
    error: Exception | None = None


@dataclass
class _Running:
    """The evaluation under way.

    Attributes:
        env_steps: As in `Evaluation`.
        seeds: Of its episodes.
        weights: RLlib's state, with a reference to the weights to act by.
        begun: When, by the monotonic clock.
        parts: Seeds by the request for them, and the env runner that was asked.
        unassigned: Seeds that nobody has been asked for.
        rows: Figures by seed.
        deaths: Env runners that died meanwhile.
    """

    env_steps: int
    seeds: list[int]
    weights: dict[str, Any]
    begun: float
    parts: dict[ray.ObjectRef, tuple[int, list[int]]] = field(default_factory=dict)
    unassigned: list[int] = field(default_factory=list)
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    deaths: int = 0


class Evaluator:
    """Evaluates on the goals of seeds that training never uses, one evaluation at a time.

    The same seed always gives the same starts and goals, however many env runners share the work.

    Args:
        group: The env runners: one in this process, or remote ones.
        weights: Gives the state to act by now, for remote env runners.
        sync: Hands the weights over to the env runner in this process.
        timeout_s: Time that remote env runners may take (`evaluation_sample_timeout_s`).
    """

    def __init__(
        self,
        group: EnvRunnerGroup,
        weights: Callable[[], dict[str, Any]],
        sync: Callable[[], None],
        timeout_s: float,
    ) -> None:
        self._group = group
        self._manager = env_runner_manager(group)
        self._weights = weights
        self._sync = sync
        self._timeout_s = timeout_s
        self._dead: set[int] = set()
        self._revivals = Revivals(self._manager)
        self._running: _Running | None = None
        self._ended: Evaluation | None = None  # of the env runner in this process

    @property
    def env_steps(self) -> int | None:
        """Environment steps at the beginning of the evaluation under way; None if there is none."""
        return None if self._running is None else self._running.env_steps

    def start(self, env_steps: int, num_episodes: int, seed: int = 0) -> None:
        """Begins an evaluation, for `poll` to end. An env runner in this process makes all of it.

        Args:
            env_steps: Environment steps made so far.
            num_episodes: Episodes, each from a seed of its own.
            seed: Which of the seeds: see `held_out_seeds`.
        """
        assert self._running is None
        seeds = held_out_seeds(num_episodes, seed)
        if self._group.num_remote_env_runners() == 0:
            self._ended = self._evaluate_here(env_steps, seeds)
            return
        now = time.monotonic()
        self._running = _Running(env_steps, seeds, self._weights(), now, unassigned=list(seeds))

    def finish(self) -> Evaluation | None:
        """Waits for the end of the evaluation under way, if there is one."""
        while (ended := self.poll(timeout_s=1)) is None and self._running is not None:
            pass
        return ended

    def poll(self, timeout_s: float = 0) -> Evaluation | None:
        """The evaluation that was begun, if it has ended: hands out work and takes in what came.

        Args:
            timeout_s: Time to wait for something to come.
        """
        if (running := self._running) is None:
            ended, self._ended = self._ended, None
            return ended
        self._hand_out(running)
        error = None
        for reference in wait(list(running.parts), timeout_s):
            error = error or self._take(running, reference)
        is_done = len(running.rows) == len(running.seeds)
        if error is None and not is_done:
            error = self._why_it_never_ends(running)
            if not running.parts:
                time.sleep(min(timeout_s, 0.1))  # none of the env runners is alive
        if error is not None:
            self._running = None
            return Evaluation(running.env_steps, error=error)
        if not is_done:
            return None
        self._running = None
        rows = [running.rows[seed] for seed in running.seeds]
        episodes = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return Evaluation(running.env_steps, summarize(episodes))

    def _evaluate_here(self, env_steps: int, seeds: list[int]) -> Evaluation:
        self._sync()
        try:
            episodes = self._group.local_env_runner.evaluate(seeds)
        except Exception as error:
            return Evaluation(env_steps, error=error)
        return Evaluation(env_steps, summarize(episodes))

    def _hand_out(self, running: _Running) -> None:
        """Shares out what nobody has been asked for among the env runners that are alive."""
        self._dead.difference_update(self._revivals.of(self._dead))
        alive = [number for number in self._manager.actors() if number not in self._dead]
        if not running.unassigned or not alive:
            return
        for runner, part in zip(alive, np.array_split(running.unassigned, len(alive)), strict=True):
            if len(part):
                request = self._manager.actors()[runner].apply.remote
                reference = request(_evaluate, part.tolist(), running.weights)
                running.parts[reference] = runner, part.tolist()
        running.unassigned = []

    def _take(self, running: _Running, reference: ray.ObjectRef) -> Exception | None:
        """Takes in the answer to a request; returns what ends the evaluation."""
        runner, part = running.parts.pop(reference)
        try:
            results = ray.get(reference)
        except RayError as error:
            logger.warning(
                "Env runner %d is lost in an evaluation: %s.", runner, type(error).__name__
            )
            self._dead.add(runner)
            running.unassigned += part
            running.deaths += 1
            if running.deaths <= MOST_DEATHS:
                return None
            return EvaluationLostError(f"Env runners died {running.deaths} times in an evaluation.")
        if isinstance(results, Exception):
            return results
        for i, seed in enumerate(part):
            running.rows[seed] = {name: values[i] for name, values in results.items()}
        return None

    def _why_it_never_ends(self, running: _Running) -> Exception | None:
        """What ends the evaluation, if it is not to be waited for any longer."""
        if not running.parts and all(map(is_dead, self._manager.actors().values())):
            return EvaluationLostError("All env runners of the evaluation are lost for good.")
        if time.monotonic() - running.begun <= self._timeout_s:
            return None
        for runner, _ in running.parts.values():
            ray.kill(self._manager.actors()[runner], no_restart=False)
            self._dead.add(runner)
        return EvaluationLostError(
            f"The evaluation took more than {self._timeout_s:g} s (evaluation_sample_timeout_s)."
        )


def _evaluate(
    runner: GoalEnvRunner, seeds: list[int], weights: Mapping[str, Any]
) -> Episodes | Exception:
    """Runs on an env runner. Its error is returned: raised, RLlib would restart the runner."""
    try:
        runner.forget_weights_version()
        runner.set_state(dict(weights))
        return runner.evaluate(seeds)
    except Exception as error:
        return picklable(error)
