"""Environments of one process that step in several threads.

MuJoCo computes without Python's lock, so that its environments step at the same time in threads: as
many cores as threads are used without a process, a copy of the policy and messages for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

_Item = TypeVar("_Item")


class Threads:
    """Some threads, the caller's among them, which share work.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._others = count - 1
        self._pool = ThreadPoolExecutor(self._others) if self._others else None

    def each(self, function: Callable[[_Item], object], items: Iterable[_Item]) -> None:
        """Calls a function of every item; a thread that is done takes the next one.

        Raises:
            Exception: What the function raises, after all threads have ended.
        """
        todo = iter(list(items))

        def work(todo: Iterator[_Item]) -> None:
            for item in todo:
                function(item)

        if self._pool is None:
            work(todo)
            return
        others = [self._pool.submit(work, todo) for _ in range(self._others)]
        try:
            work(todo)
        finally:
            errors = [other.exception() for other in others]  # waits for them
        for error in filter(None, errors):
            raise error

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()


class ThreadedVectorEnv(SyncVectorEnv):
    """A `SyncVectorEnv` of autoreset NEXT_STEP that gives the same, from several threads.

    An environment is stepped by one thread at a time, though not always by the same one.

    Args:
        env_fns: Make the environments.
        num_threads: Threads that step them, the caller's among them.
    """

    def __init__(
        self, env_fns: Sequence[Callable[[], gym.Env[Any, Any]]], num_threads: int
    ) -> None:
        super().__init__(env_fns, autoreset_mode=AutoresetMode.NEXT_STEP)
        self._threads = Threads(num_threads)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps all environments, or resets those whose episode has ended.

        Raises:
            Exception: What an environment raises, after all threads have ended.
        """
        results: list[Any] = [None] * self.num_envs

        def step_one(item: tuple[int, Any]) -> None:
            index, action = item
            env = self.envs[index]
            if self._autoreset_envs[index]:
                observation, info = env.reset()
                results[index] = observation, 0.0, False, False, info
            else:
                results[index] = env.step(action)

        self._threads.each(step_one, enumerate(iterate(self.action_space, actions)))
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
        single = self.single_observation_space
        room = create_empty_array(single, self.num_envs)
        self._observations = concatenate(single, self._env_obs, room)
        return self._observations, self._rewards, self._terminations, self._truncations, infos

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the environments, and ends the threads."""
        self._threads.close()
        super().close_extras(**kwargs)
