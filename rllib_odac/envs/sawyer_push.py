"""Sawyer's push in the plane, as the family of environments of the paper's authors has it.

The model is that of Meta-World's push, with a puck of the authors' size. What differs from
`odac/MetaWorldPush-v0`: the hand stays at one height with its fingers closed, so that every action
is a way in the plane, and hand and puck begin anywhere and are asked to be anywhere.

Ranges are those of multiworld's `SawyerPushAndReachEnvEasy-v0` (github.com/vitchyr/multiworld). Its
puck is kept within its range at every step, and its hand gets 5 cm farther on every side. The first
of that family, of Nair et al. 2018 (arXiv 1807.04742), has one range for both and lets the puck
leave it: the hand cannot get behind a puck near an edge, so that many goals are out of reach there.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle
from numpy.typing import NDArray

from rllib_odac.envs.base import FloatArray, GoalEnv
from rllib_odac.envs.goals import Goals
from rllib_odac.envs.sawyer import HAND, OBJECT, make_simulator, show_goal

HAND_LOW, HAND_HIGH = np.array([-0.15, 0.4]), np.array([0.15, 0.7])  # m
PUCK_LOW, PUCK_HIGH = np.array([-0.1, 0.45]), np.array([0.1, 0.65])  # m
HEIGHT = 0.06  # m, of the hand
PUCK_RADIUS = 0.04  # m
PUCK_HEIGHT = 0.02  # m, of its centre
APART = 0.1  # m between hand and puck, at the beginning and in a goal
SUCCESS_DISTANCE = 0.06  # m
GOAL_SCALE = 0.15  # m
REPEATS = 2  # steps of the simulator, of 1 cm each
CLOSED = 1.0


class SawyerPushEnv(GoalEnv, EzPickle):
    """`odac/SawyerPush-v0`: push a puck to a place on the table, and be at another one oneself.

    The observation (8,) is hand xy and puck xy, now and a step before. Actions in [-1, 1]^2 move
    the hand by up to 2 cm along x and y, within x ± 0.15 and y 0.4 to 0.7; the puck stays within
    x ± 0.1 and y 0.45 to 0.65. The goal (4,) is hand xy and puck xy, uniform there, in metres; it
    is reached where all four together are within 0.06 m. The horizon is 100 steps of 0.025 s.

    Args:
        render_mode: None, "rgb_array" or "human".
    """

    def __init__(self, render_mode: str | None = None) -> None:
        EzPickle.__init__(self, render_mode)
        low = np.concatenate([HAND_LOW, PUCK_LOW])
        high = np.concatenate([HAND_HIGH, PUCK_HIGH])
        super().__init__(
            make_simulator("push-v3", render_mode),
            desired_goal_space=gym.spaces.Box(low.astype(np.float32), high.astype(np.float32)),
            observation_dim=8,
            goals=Goals(SUCCESS_DISTANCE, scale=GOAL_SCALE, hand_object=(slice(0, 2), slice(2, 4))),
        )
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        robot: Any = self.simulator
        puck = robot.model.geom("objGeom")
        puck.size[0] = PUCK_RADIUS
        puck.rbound[:] = np.hypot(PUCK_RADIUS, puck.size[1])
        robot.mocap_low = np.append(HAND_LOW, HEIGHT)
        robot.mocap_high = np.append(HAND_HIGH, HEIGHT)
        self._before = np.zeros(4)

    def _reset_simulator(self, seed: int | None, options: dict[str, Any]) -> Any:
        robot: Any = self.simulator
        if seed is not None:
            robot.seed(seed)
        hand, puck = self._draw_places()
        robot.hand_init_pos = np.append(hand, HEIGHT)
        robot.reset()
        self._place_puck(puck)
        raw = robot._get_obs()
        self._before = _places(raw)
        return raw

    def step(self, action: NDArray[Any]) -> Any:
        """One step, of `REPEATS` of the simulator's."""
        planar = np.array([*np.clip(action, -1, 1), 0.0, CLOSED], dtype=np.float32)
        for _ in range(REPEATS - 1):
            self.simulator.step(planar)
        return super().step(planar)

    def _place_puck(self, place: NDArray[Any]) -> None:
        """Lays the puck, at rest, at xy."""
        import mujoco

        robot: Any = self.simulator
        robot._set_obj_xyz(np.append(place, PUCK_HEIGHT))
        mujoco.mj_forward(robot.model, robot.data)

    def _observe(self, raw: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        places = _places(raw)
        puck = places[2:]
        inside = np.clip(puck, PUCK_LOW, PUCK_HIGH)
        if (puck != inside).any():
            self._place_puck(inside)
            places[2:] = inside
        before, self._before = self._before, places
        return np.concatenate([self._before, before]), self._before

    def _draw_goal(self, raw: Any) -> NDArray[Any]:
        return np.concatenate(self._draw_places())

    def _draw_places(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Places (2,) of hand and puck that do not touch each other."""
        random: np.random.Generator = self.simulator.np_random
        while True:
            hand, puck = random.uniform(HAND_LOW, HAND_HIGH), random.uniform(PUCK_LOW, PUCK_HIGH)
            if np.linalg.norm(hand - puck) >= APART:
                return hand, puck

    def _show_goal(self, goal: FloatArray) -> None:
        show_goal(self.simulator, np.append(goal[2:], PUCK_HEIGHT))


def _places(raw: Any) -> NDArray[Any]:
    """(4,) hand xy and puck xy."""
    return np.concatenate([raw[HAND][:2], raw[OBJECT][:2]])
