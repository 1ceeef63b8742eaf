"""The tasks of OGBench (Park et al. 2024, arXiv 2410.20092) as goal environments.

    odac train --data pointmaze-medium-navigate.npz \
        --evaluate-in rllib_odac.envs.ogbench:ogbench/pointmaze-medium-v0

Needs `pip install ogbench`. Goals are places: of the body in a maze, of the block with one cube.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rllib_odac.envs.goals import Goals

TASKS = 5  # of each environment
CUBE = [19, 20, 21]  # coordinates of an observation that are the block's place, 10 m to a unit

# Coordinates of the goal, what OGBench counts as reached, and half the size of where goals lie.
PLACES: dict[str, tuple[list[int], float, float]] = {
    "pointmaze-medium": ([0, 1], 1.0, 10.0),
    "pointmaze-large": ([0, 1], 1.0, 18.0),
    "pointmaze-giant": ([0, 1], 1.0, 26.0),
    "antmaze-medium": ([0, 1], 0.5, 10.0),
    "antmaze-large": ([0, 1], 0.5, 18.0),
    "cube-single": (CUBE, 0.4, 2.0),
}


class OGBenchEnv(gym.Env[Any, Any]):
    """One of OGBench's environments: its five tasks, in turn by the seed.

    Reaching the goal ends an episode, as there.

    Args:
        name: Of `PLACES`.
        render_mode: Of Gymnasium.
    """

    def __init__(self, name: str, render_mode: str | None = None) -> None:
        import ogbench  # noqa: F401 (registers its environments)

        self._env: Any = gym.make(f"{name}-v0", render_mode=render_mode)
        self.render_mode, self.metadata = render_mode, self._env.metadata
        self._places, success_distance, scale = PLACES[name]
        self.goals = Goals(success_distance=success_distance, scale=scale, includes_boundary=True)
        goal = gym.spaces.Box(-np.inf, np.inf, (len(self._places),), np.float32)
        shape = self._env.observation_space.shape
        self.observation_space = gym.spaces.Dict(
            observation=gym.spaces.Box(-np.inf, np.inf, shape, np.float32),
            achieved_goal=goal,
            desired_goal=goal,
        )
        self.action_space = self._env.action_space
        self._goal = np.zeros(len(self._places), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begins the task that the seed names, or a random one."""
        super().reset(seed=seed)
        np.random.seed(int(self.np_random.integers(2**31)))  # where OGBench's noise comes from
        task = int(self.np_random.integers(TASKS)) if seed is None else seed % TASKS
        state, info = self._env.reset(seed=seed, options={"task_id": 1 + task})
        self._goal = info["goal"][self._places].astype(np.float32)
        return self._seen(state), self._judged(state, False)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; the reward is 0 where the goal is reached and −1 elsewhere."""
        state, _, terminated, truncated, info = self._env.step(action)
        success = bool(info["success"])
        judged = self._judged(state, success)
        return self._seen(state), float(success) - 1, terminated, truncated, judged

    def compute_reward(self, achieved: Any, goal: Any, info: Any) -> Any:
        """0 where goals (..., G) are reached and −1 elsewhere."""
        return self.goals.reached(achieved, goal).astype(np.float32) - 1

    def render(self) -> Any:
        """OGBench's picture."""
        return self._env.render()

    def close(self) -> None:
        """Closes the simulator."""
        self._env.close()

    def _judged(self, state: Any, success: bool) -> dict[str, Any]:
        distance = self.goals.distance(np.asarray(state)[self._places], self._goal)
        return {"is_success": success, "final_distance": float(distance)}

    def _seen(self, state: Any) -> dict[str, Any]:
        state = np.asarray(state, np.float32)
        achieved = state[self._places]
        return {"observation": state, "achieved_goal": achieved, "desired_goal": self._goal.copy()}


for _name in PLACES:
    gym.register(
        f"ogbench/{_name}-v0",
        entry_point="rllib_odac.envs.ogbench:OGBenchEnv",
        kwargs={"name": _name},
        max_episode_steps=200 if _name.startswith("cube") else 1000,
        disable_env_checker=True,
    )
