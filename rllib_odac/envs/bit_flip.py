"""`BitFlipEnv`: bits that have to become those of the goal, one flip a step."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from numpy.typing import ArrayLike, NDArray

from rllib_odac.envs.goals import Goals

Observation = dict[str, NDArray[np.float32]]


class BitFlipEnv(gym.Env[Observation, np.int64]):
    """n bits and n + 1 actions: flip one of them, or the last action, none.

    Bits and goal are uniform (Andrychowicz et al. 2017, section 3.1). With none to flip a goal can
    be kept until the episode ends, which reaching it does not.

    Args:
        num_bits: n.
        render_mode: None, or "rgb_array" for pictures.

    Raises:
        ValueError: If there are none.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

    def __init__(self, num_bits: int = 16, render_mode: str | None = None) -> None:
        if num_bits < 1:
            raise ValueError(f"num_bits is {num_bits}, but must be at least 1.")
        self.num_bits = num_bits
        names = ("observation", "achieved_goal", "desired_goal")
        self.observation_space = Dict({name: Box(0, 1, (num_bits,)) for name in names})
        self.render_mode = render_mode
        self.action_space = Discrete(num_bits + 1)
        self.goals = Goals(success_distance=0.5, scale=1.0, units="bits")
        self._bits = self._goal = np.zeros(num_bits, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draws bits, and a goal unless `options={"goal": ...}` asks for one."""
        super().reset(seed=seed)
        self._bits, self._goal = self.np_random.integers(0, 2, (2, self.num_bits)).astype("f4")
        if options and "goal" in options:
            self._goal = np.asarray(options["goal"], np.float32)
        return self._observation(), self._info()

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Flips a bit, or none."""
        if action < self.num_bits:
            self._bits[action] = 1 - self._bits[action]
        info = self._info()
        return self._observation(), float(info["is_success"]) - 1, False, False, info

    def compute_reward(
        self, achieved_goal: ArrayLike, desired_goal: ArrayLike, info: Any = None
    ) -> NDArray[np.float32]:
        """0 where goals (..., n) are reached and -1 elsewhere; (...)."""
        reached = self.goals.reached(np.asarray(achieved_goal), np.asarray(desired_goal))
        return np.asarray(reached, np.float32) - 1

    def render(self) -> Any:
        """The bits above those of the goal, ones white."""
        picture = np.stack([self._bits, self._goal])[..., None].repeat(3, axis=-1)
        return (255 * picture).astype(np.uint8).repeat(32, axis=0).repeat(32, axis=1)

    def _observation(self) -> Observation:
        bits, goal = self._bits.copy(), self._goal.copy()
        return {"observation": bits, "achieved_goal": bits.copy(), "desired_goal": goal}

    def _info(self) -> dict[str, Any]:
        wrong = float(np.linalg.norm(self._bits - self._goal))
        return {"is_success": wrong < 0.5, "final_distance": wrong}
