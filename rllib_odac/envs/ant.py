"""Ant: Gymnasium's four-legged robot walks to a place."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle
from numpy.typing import NDArray

from rllib_odac.envs.base import GoalEnv

GOAL_RANGE = 5.0  # m, half-width of the goals around where the ant starts
XY, POSE = 2, 15  # coordinates of the body's place, and of its whole configuration


class AntEnv(GoalEnv, EzPickle):
    """`odac/Ant-v0`: `Ant-v5` with goals and without its reward.

    The observation (29,) is every position and velocity of `Ant-v5`, the body's xy among them. The
    goal is xy in metres, uniform within 5 m of the origin along each axis; reached nearer than
    0.5 m. The horizon is 200 steps of 0.05 s, and falling over ends nothing.

    Args:
        goal: "xy", or "pose" for (15,) goals: xyz, quaternion and joint angles of an ant that
            stands at the goal as it stands at the start. Distance and success are xy's alone.
        render_mode: None, "rgb_array" or "human".
        **kwargs: further arguments of `Ant-v5`.

    Raises:
        ValueError: `goal` is another word.
    """

    def __init__(self, goal: str = "xy", render_mode: str | None = None, **kwargs: Any) -> None:
        EzPickle.__init__(self, goal=goal, render_mode=render_mode, **kwargs)
        if goal not in ("xy", "pose"):
            raise ValueError(f'goal is {goal!r}, but must be "xy" or "pose".')
        self.goal = goal
        ant = gym.make(
            "Ant-v5",
            render_mode=render_mode,
            disable_env_checker=True,
            exclude_current_positions_from_observation=False,
            include_cfrc_ext_in_observation=False,
            terminate_when_unhealthy=False,
            **kwargs,
        ).unwrapped
        standing = np.array(ant.init_qpos, dtype=np.float64)  # type: ignore[attr-defined]
        self._standing = standing[: XY if goal == "xy" else POSE]
        low, high = self._standing.astype(np.float32), self._standing.astype(np.float32)
        low[:XY], high[:XY] = -GOAL_RANGE, GOAL_RANGE
        (observation_dim,) = ant.observation_space.shape  # type: ignore[misc]
        super().__init__(
            ant,
            desired_goal_space=gym.spaces.Box(low, high),
            observation_dim=observation_dim,
            success_distance=0.5,
            goal_scale=GOAL_RANGE,
            measured=slice(0, XY),
        )

    def _observe(self, raw: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        return raw, raw[: len(self._standing)]

    def _draw_goal(self, raw: Any) -> NDArray[Any]:
        goal = self._standing.copy()
        goal[:XY] = self.np_random.uniform(-GOAL_RANGE, GOAL_RANGE, XY)
        return goal
