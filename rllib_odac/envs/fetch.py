"""Fetch Push: gymnasium-robotics' arm pushes a block to a place on the table."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle
from numpy.typing import NDArray

from rllib_odac.envs.base import FloatArray, GoalEnv
from rllib_odac.envs.goals import Goals
from rllib_odac.envs.registry import import_robotics

TARGET_RANGE = 0.15  # m, half-width of the goals around the gripper's first place, in x and in y
HAND_ABOVE = 0.06  # m, how far above the block's goal the hand's is: on top of it, touching


class FetchPushEnv(GoalEnv, EzPickle):
    """`odac/FetchPush-v0`: `FetchPush-v4` as it is, in float32.

    The observation (25,) is that of `FetchPush-v4`: gripper, block, their velocities. The goal is
    the block's xyz in metres, uniform within 0.15 m of the gripper's first place in x and y and on
    the table; reached nearer than 0.05 m. The horizon is 50 steps of 0.04 s.

    Args:
        goal: "object", or "hand_object" for (6,) goals: the gripper's xyz, above the block's goal,
            and the block's. Distance and success are the block's alone.
        render_mode: None, "rgb_array" or "human".
        **kwargs: further arguments of `FetchPush-v4`.

    Raises:
        ValueError: `goal` is another word.
    """

    def __init__(self, goal: str = "object", render_mode: str | None = None, **kwargs: Any) -> None:
        EzPickle.__init__(self, goal=goal, render_mode=render_mode, **kwargs)
        if goal not in ("object", "hand_object"):
            raise ValueError(f'goal is {goal!r}, but must be "object" or "hand_object".')
        self.goal = goal
        arm = _simulator(render_mode=render_mode, **kwargs)
        x, y, _ = arm.initial_gripper_xpos
        z = arm.height_offset
        center, reach = np.array([x, y, z]), np.array([TARGET_RANGE, TARGET_RANGE, 1e-3])
        if goal == "hand_object":
            center, reach = np.concatenate([_above(center), center]), np.tile(reach, 2)
        rounding = 1e-6
        super().__init__(
            arm,
            desired_goal_space=gym.spaces.Box(
                (center - reach - rounding).astype(np.float32),
                (center + reach + rounding).astype(np.float32),
            ),
            observation_dim=arm.observation_space["observation"].shape[0],
            goals=Goals(
                arm.distance_threshold,
                measured=slice(-3, None),
                scale=TARGET_RANGE,
                hand_object=(slice(0, 3), slice(3, 6)),
            ),
        )

    def _observe(self, raw: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        observation, block = raw["observation"], raw["achieved_goal"]
        if self.goal == "object":
            return observation, block
        return observation, np.concatenate([observation[:3], block])

    def _draw_goal(self, raw: Any) -> NDArray[Any]:
        block: NDArray[Any] = raw["desired_goal"]
        return block if self.goal == "object" else np.concatenate([_above(block), block])

    def _show_goal(self, goal: FloatArray) -> None:
        self.simulator.goal = goal[-3:].astype(np.float64)  # type: ignore[attr-defined]


def _simulator(**kwargs: Any) -> Any:
    """`FetchPush-v4` that observes the same faster."""
    import_robotics(required=True)
    from gymnasium_robotics.envs.fetch.push import MujocoFetchPushEnv
    from gymnasium_robotics.utils.mujoco_utils import get_site_xvelp, get_site_xvelr
    from gymnasium_robotics.utils.rotations import mat2euler

    class LeanFetchPush(MujocoFetchPushEnv):  # type: ignore[misc]
        def generate_mujoco_observations(self) -> tuple[NDArray[Any], ...]:
            # Of the robot's joints only the fingers' are observed; reading all took a fifth of a
            # step.
            model, data, dt = self.model, self.data, self.dt
            hand, block = data.site("robot0:grip"), data.site("object0")
            fingers = [data.joint(f"robot0:{side}_gripper_finger_joint") for side in "rl"]
            hand_velocity = get_site_xvelp(model, data, hand.name) * dt
            return (
                hand.xpos,
                block.xpos,
                block.xpos - hand.xpos,
                np.concatenate([finger.qpos for finger in fingers]),
                mat2euler(block.xmat.reshape(3, 3)),
                get_site_xvelp(model, data, block.name) * dt - hand_velocity,
                get_site_xvelr(model, data, block.name) * dt,
                hand_velocity,
                np.concatenate([finger.qvel for finger in fingers]) * dt,
            )

    return LeanFetchPush(**kwargs)


def _above(block: NDArray[Any]) -> NDArray[Any]:
    hand: NDArray[Any] = block + np.array([0.0, 0.0, HAND_ABOVE])
    return hand
