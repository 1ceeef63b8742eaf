"""`MetaWorldEnv`: each task of Meta-World with one object as a goal environment, by its name."""

from __future__ import annotations

from typing import Any

from gymnasium.utils import EzPickle
from numpy.typing import NDArray

from rllib_odac.envs.sawyer import HAND, SawyerEnv


class MetaWorldEnv(SawyerEnv):
    """`odac/MetaWorld-v0`: what a task of Meta-World moves is to be where Meta-World wants it.

    It is for the tasks with one object. Observations, actions and goals are those of every
    `SawyerEnv`; the object's goal is Meta-World's target of the episode, and in "reach-v3" and
    "reach-wall-v3" that of the hand. `docs/works_with.md` names the tasks in which Meta-World's
    scripted policies take the object there; not every target is where it can be.

    Args:
        task: Meta-World's name, such as "drawer-open-v3".
        success_distance: within which the object has reached its goal, in metres.
        goal: "object", or "hand_object" where the hand's goal is the object's too.
        render_mode: as for every Sawyer task.

    Raises:
        ValueError: there is no such task, it has two objects, or `goal` is another word.
    """

    def __init__(
        self,
        task: str = "drawer-open-v3",
        success_distance: float = 0.05,
        goal: str = "object",
        render_mode: str | None = None,
    ) -> None:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        EzPickle.__init__(self, task, success_distance, goal, render_mode)
        if task not in ALL_V3_ENVIRONMENTS:
            raise ValueError(f"task is {task!r}, but must be in {sorted(ALL_V3_ENVIRONMENTS)}.")
        self._moves_the_hand = task.startswith("reach-")
        super().__init__(
            task=task,
            goals=[(-1.0, 0.0, -0.5), (1.0, 1.5, 1.0)],
            hand_at_goal=(0.0, 0.0, 0.0),
            success_distance=success_distance,
            goal_scale=0.2,
            goal=goal,
            render_mode=render_mode,
        )

    def _object(self, raw: Any) -> NDArray[Any]:
        place: NDArray[Any] = raw[HAND].copy() if self._moves_the_hand else super()._object(raw)
        return place

    def _object_goal(self) -> NDArray[Any]:
        target: NDArray[Any] = self.simulator._target_pos  # type: ignore[attr-defined]
        return target.copy()
