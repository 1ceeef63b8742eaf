"""Many ants in one process: each has physics of its own, and all are seen and judged at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rllib_odac.envs.ant import AntEnv
from rllib_odac.envs.base import FloatArray, Observation
from rllib_odac.envs.threads import Threads


class AntVectorEnv(VectorEnv[Observation, NDArray[Any], NDArray[Any]]):
    """The vector form of `odac/Ant-v0`: what `SyncVectorEnv` gives, bit for bit.

    Physics take turns or, after `use_threads`, run at the same time. `mujoco.rollout` would run
    them without Python, but forgets the solver's warm start after each call, so that an ant would
    not walk on as it does alone. Autoreset is NEXT_STEP.

    Args:
        num_envs: N.
        max_episode_steps: Horizon; `gymnasium.make_vec` passes the registered one.
        **kwargs: As for `AntEnv`.

    Raises:
        ValueError: As for `AntEnv`.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (a dict of the class, as Gymnasium declares it)
        **AntEnv.metadata,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(self, num_envs: int = 1, max_episode_steps: int = 200, **kwargs: Any) -> None:
        super().__init__()
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.envs = [AntEnv(**kwargs) for _ in range(num_envs)]
        first: Any = self.envs[0]
        self.render_mode = first.render_mode
        self.single_observation_space = first.observation_space
        self.single_action_space = first.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._simulators: list[Any] = [env.simulator for env in self.envs]
        # Views into the simulators' memory, which stays where it is.
        self._positions = [simulator.data.qpos for simulator in self._simulators]
        self._velocities = [simulator.data.qvel for simulator in self._simulators]
        self._controls = [simulator.data.ctrl for simulator in self._simulators]
        (goal_dim,) = first.observation_space["desired_goal"].shape
        self._goal = np.zeros((num_envs, goal_dim), dtype=np.float32)
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self._threads = Threads(1)

    def use_threads(self, count: int) -> None:
        """Lets so many threads step, as long as there are as many ants."""
        self._threads.close()
        self._threads = Threads(min(count, self.num_envs))

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins an episode of every ant.

        Args:
            seed: One for each, or s for s, s + 1, ...
            options: As for `AntEnv`, the same for all.
        """
        seeds: Sequence[int | None] = [None] * self.num_envs
        if isinstance(seed, int):
            seeds = range(seed, seed + self.num_envs)
        elif seed is not None:
            seeds = seed
        for index, each in zip(range(self.num_envs), seeds, strict=True):
            self._begin(index, seed=each, options=options)
        return self._observed()

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Steps all ants by actions (N, 8), or resets those whose episode has ended."""
        from mujoco import mj_step

        begins = self._elapsed >= self.max_episode_steps
        self._elapsed += 1
        for index in np.flatnonzero(begins).tolist():
            self._begin(index)

        def walk(index: int) -> None:
            simulator = self._simulators[index]
            self._controls[index][:] = actions[index]
            mj_step(simulator.model, simulator.data, nstep=simulator.frame_skip)

        self._threads.each(walk, np.flatnonzero(~begins).tolist())
        observation, infos = self._observed()
        rewards = np.where(infos["is_success"] | begins, 0.0, -1.0)
        truncated = self._elapsed >= self.max_episode_steps
        return observation, rewards, np.zeros_like(truncated), truncated, infos

    def _begin(self, index: int, **kwargs: Any) -> None:
        observation, _ = self.envs[index].reset(**kwargs)
        self._goal[index] = observation["desired_goal"]
        self._elapsed[index] = 0

    def _observed(self) -> tuple[Observation, dict[str, Any]]:
        states = np.concatenate([self._positions, self._velocities], axis=1).astype(np.float32)
        achieved: FloatArray = states[:, : self._goal.shape[1]].copy()
        observation = {
            "observation": states,
            "achieved_goal": achieved,
            "desired_goal": self._goal.copy(),
        }
        task = self.envs[0]
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        # Gymnasium's convention: each entry comes with a mask of the environments that report it.
        infos = {
            "is_success": task.is_success(achieved, self._goal),
            "_is_success": everywhere,
            "final_distance": task.goal_distance(achieved, self._goal),
            "_final_distance": everywhere,
        }
        return observation, infos

    def render(self) -> tuple[Any, ...]:
        """The picture of each."""
        return tuple(env.render() for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the simulators, and ends the threads."""
        self._threads.close()
        for env in self.envs:
            env.close()
