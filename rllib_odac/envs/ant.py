"""Ant: Gymnasium's four-legged robot walks to a place."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle
from numpy.typing import NDArray

from rllib_odac.envs.base import FREE_CAMERA, MARK, GoalEnv
from rllib_odac.envs.goals import Goals

GOAL_RANGE = 5.0  # m, half-width of the goals around where the ant starts
SUCCESS_DISTANCE = 0.5  # m
FIXED = {
    "exclude_current_positions_from_observation": False,  # the goal is about them
    "include_cfrc_ext_in_observation": False,
    "terminate_when_unhealthy": False,  # an ant that fell can get up again
}
XY, POSE = 2, 15  # coordinates of the body's place, and of its whole configuration
# Ant-v5's own camera follows the ant, and shows neither where it started nor where it shall go.
CAMERA = {
    "distance": 17.0,
    "azimuth": 90.0,
    "elevation": -60.0,
    "lookat": np.array([0.0, -0.5, 0.0]),
}


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
        ValueError: `goal` is another word, or an argument is none to set.
    """

    def __init__(self, goal: str = "xy", render_mode: str | None = None, **kwargs: Any) -> None:
        EzPickle.__init__(self, goal=goal, render_mode=render_mode, **kwargs)
        if goal not in ("xy", "pose"):
            raise ValueError(f'goal is {goal!r}, but must be "xy" or "pose".')
        for name in FIXED.keys() & kwargs.keys():
            raise ValueError(f"{name} of odac/Ant-v0 is {FIXED[name]} and cannot be set.")
        self.goal = goal
        camera: dict[str, Any] = {"camera_id": FREE_CAMERA, "default_camera_config": CAMERA}
        ant = _lean_ant(render_mode=render_mode, **FIXED, **camera | kwargs)
        standing = np.array(ant.init_qpos, dtype=np.float64)
        self._standing = standing[: XY if goal == "xy" else POSE]
        low, high = self._standing.astype(np.float32), self._standing.astype(np.float32)
        low[:XY], high[:XY] = -GOAL_RANGE, GOAL_RANGE
        (observation_dim,) = ant.observation_space.shape
        super().__init__(
            ant,
            desired_goal_space=gym.spaces.Box(low, high),
            observation_dim=observation_dim,
            goals=Goals(SUCCESS_DISTANCE, measured=slice(0, XY), scale=GOAL_RANGE),
        )

    def _observe(self, raw: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        return raw, raw[: len(self._standing)]

    def _draw_goal(self, raw: Any) -> NDArray[Any]:
        goal = self._standing.copy()
        # The simulator got the same seed: drawn from the generator itself, goals would go along
        # with the places that ants start from.
        rng = self.np_random.spawn(1)[0]
        goal[:XY] = rng.uniform(-GOAL_RANGE, GOAL_RANGE, XY)
        return goal

    def render(self) -> Any:
        """The simulator's picture; with "rgb_array" the places that count as the goal are marked.

        "human" shows the simulator's own window, without a mark.
        """
        if self.render_mode == "rgb_array":
            from mujoco import mjtGeom

            robot: Any = self.simulator
            robot.mujoco_renderer._get_viewer("rgb_array").add_marker(  # for one picture
                type=mjtGeom.mjGEOM_CYLINDER,
                pos=np.append(self._goal[:XY], 0.0),
                size=np.array([SUCCESS_DISTANCE, 0.01, 0.0]),
                rgba=np.array(MARK),
                label="",
            )
        return super().render()


def _lean_ant(**kwargs: Any) -> Any:
    """Gymnasium's ant without its reward, and without the contact forces that only that needs."""
    import mujoco
    from gymnasium.envs.mujoco.ant_v5 import AntEnv as MujocoAntEnv

    class LeanAnt(MujocoAntEnv):
        def step(self, action: Any) -> Any:
            self.data.ctrl[:] = action
            mujoco.mj_step(self.model, self.data, nstep=self.frame_skip)
            if self.render_mode == "human":
                self.render()  # type: ignore[no-untyped-call]
            return self._get_obs(), 0.0, False, False, {}  # type: ignore[no-untyped-call]

    return LeanAnt(**kwargs)
