"""A vector environment whose environments step in threads of one process.

MuJoCo computes without Python's lock, so that its environments step at the same time in threads: as
many cores as threads are used without a process, a copy of the policy and messages for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, iterate


class ThreadedVectorEnv(SyncVectorEnv):
    """A `SyncVectorEnv` of autoreset NEXT_STEP that gives the same, from several threads.

    An environment is stepped by one thread at a time, though not always by the same one.

    Args:
        env_fns: Make the environments.
        num_threads: Threads that step them, the caller's among them.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env[Any, Any]]], num_threads: int):
        super().__init__(env_fns, autoreset_mode=AutoresetMode.NEXT_STEP)
        self._pool = ThreadPoolExecutor(num_threads - 1)
        self._num_others = num_threads - 1

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps all environments, or resets those whose episode has ended.

        Raises:
            Exception: What an environment raises, after all threads have ended.
        """
        results: list[Any] = [None] * self.num_envs
        todo = iter(list(enumerate(iterate(self.action_space, actions))))
        others = [self._pool.submit(self._work, todo, results) for _ in range(self._num_others)]
        try:
            self._work(todo, results)
        finally:
            errors = [other.exception() for other in others]  # waits for them
        for error in filter(None, errors):
            raise error
        infos: dict[str, Any] = {}
        for index, result in enumerate(results):
            self._env_obs[index] = result[0]
            infos = self._add_info(infos, result[4], index)
        _, rewards, terminated, truncated, _ = zip(*results, strict=True)
        self._rewards = np.array(rewards, dtype=np.float64)
        self._terminations = np.array(terminated, dtype=np.bool_)
        self._truncations = np.array(truncated, dtype=np.bool_)
        self._autoreset_envs = self._terminations | self._truncations
        # Into new arrays, so that nothing has to be copied for the caller.
        self._observations = concatenate(
            self.single_observation_space,
            self._env_obs,
            gym.vector.utils.create_empty_array(self.single_observation_space, self.num_envs),
        )
        return self._observations, self._rewards, self._terminations, self._truncations, infos

    def _work(self, todo: Iterator[tuple[int, Any]], results: list[Any]) -> None:
        """Takes one environment after the other, as long as there are any."""
        for index, action in todo:
            env = self.envs[index]
            if self._autoreset_envs[index]:
                observation, info = env.reset()
                results[index] = observation, 0.0, False, False, info
            else:
                results[index] = env.step(action)

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the environments, and ends the threads."""
        self._pool.shutdown()
        super().close_extras(**kwargs)
