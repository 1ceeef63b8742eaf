"""Deterministic evaluation on held-out goals."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EVALUATION_RESULTS, NUM_EPISODES
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rllib_odac.env_runner import TRAINING_SEEDS, GoalEnvRunner
from rllib_odac.runtime.learner_calls import picklable

if TYPE_CHECKING:
    from ray.rllib.env.env_runner_group import EnvRunnerGroup

    from rllib_odac.algorithm import ODAC


def summarize(episodes: dict[str, np.ndarray[Any, Any]]) -> dict[str, float]:
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


def evaluate_episodes(
    env_runners: EnvRunnerGroup, num_episodes: int, seed: int = 0
) -> dict[str, np.ndarray[Any, Any]]:
    """Evaluates on the goals of `num_episodes` seeds that training never uses.

    The same seed always gives the same starts and goals, however many env runners share the work.

    Returns:
        (N,) arrays as `GoalEnvRunner.evaluate` returns them, in the order of the seeds.

    Raises:
        RuntimeError: If every env runner was lost. What a single one owed, others make up for.
        Exception: Any that an environment raised.
    """
    seeds = held_out_seeds(num_episodes, seed)
    if env_runners.num_remote_env_runners() == 0:
        result: dict[str, np.ndarray[Any, Any]] = env_runners.local_env_runner.evaluate(seeds)
        return result
    rows: dict[int, dict[str, Any]] = {}
    while missing := [each for each in seeds if each not in rows]:
        workers = env_runners.healthy_worker_ids()
        if not workers:
            raise RuntimeError("Every evaluation env runner was lost while it evaluated.")
        parts = np.array_split(missing, len(workers))
        by_worker = {worker: part.tolist() for worker, part in zip(workers, parts, strict=True)}
        for part, results in env_runners.foreach_env_runner(
            functools.partial(_evaluate, by_worker=by_worker),
            local_env_runner=False,
            remote_worker_ids=[worker for worker, part in by_worker.items() if part],
        ):
            if isinstance(results, Exception):
                raise results
            for i, each in enumerate(part):
                rows[each] = {name: values[i] for name, values in results.items()}
    return {name: np.stack([rows[each][name] for each in seeds]) for name in rows[seeds[0]]}


def _evaluate(
    runner: GoalEnvRunner, by_worker: dict[int, list[int]]
) -> tuple[list[int], dict[str, np.ndarray[Any, Any]] | Exception]:
    """Runs on an env runner. Its error is returned: raised, RLlib would restart the runner."""
    part = by_worker[runner.worker_index]
    try:
        return part, runner.evaluate(part)
    except Exception as error:
        return part, picklable(error)


def evaluate_on_held_out_goals(
    algorithm: ODAC, env_runners: EnvRunnerGroup | None
) -> tuple[dict[str, Any], int, int]:
    """RLlib's `custom_evaluation_function`: `evaluation_duration` episodes on held-out goals."""
    episodes = evaluate_episodes(
        env_runners or algorithm.env_runner_group, algorithm.config.evaluation_duration
    )
    results = summarize(episodes)
    results[NUM_EPISODES] = results.pop("num_episodes")
    # RLlib reports what was aggregated from other loggers, so the figures pass through one.
    logger = MetricsLogger(root=False)
    logger.log_dict(results, window=1)
    algorithm.metrics.aggregate([logger.reduce()], key=(EVALUATION_RESULTS, ENV_RUNNER_RESULTS))
    env_steps = int(episodes["episode_length"].sum())
    return {ENV_RUNNER_RESULTS: results}, env_steps, env_steps
