"""Sawyer's push, faucet and window: Meta-World's robot and objects with goals of their own.

Models and physics are Meta-World's. Its rewards, which no goal-reaching method needs, are not
computed: they take most of a step's time. Its observations are computed, but faster. What else
differs from Meta-World, and why:

* Goals can be reached. Meta-World's targets are up to 10 cm from where a handle can go; here the
  goal is the handle's own position at the limit of its joint.
* The first observation of an episode is that of the episode's first state; Meta-World's still
  shows where the object was before it was put in its place.
* `reset(seed=...)` reproduces; Meta-World's ignores its seed.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle
from numpy.typing import ArrayLike, NDArray

from rllib_odac.envs.base import FREE_CAMERA, MARK, FloatArray, GoalEnv
from rllib_odac.envs.goals import Goals

# Places in Meta-World's observation, which holds two frames.
HAND, GRIPPER, OBJECT, ROTATION, FRAME = slice(0, 3), 3, slice(4, 7), slice(7, 11), 18
# Meta-World's cameras at the corners are upside down.
CAMERA = {
    "distance": 1.15,
    "azimuth": 140.0,
    "elevation": -30.0,
    "lookat": np.array([0.0, 0.68, 0.15]),
}
MARK_SIZE = 0.02  # m
NEVER = 2**31  # steps: the time limit is Gymnasium's


class SawyerEnv(GoalEnv, EzPickle):
    """What the three tasks share; see each for its goals.

    The observation (22,) is hand xyz, gripper opening, the object's xyz and quaternion, now and a
    step before. Actions in [-1, 1]^4 move the hand by up to 1 cm along each axis and close the
    gripper. The goal (6,) is hand xyz and object xyz, or the object's (3,) alone, in metres;
    distance and success are the object's, whichever is chosen. The horizon is 150 steps of
    0.0125 s.

    Args:
        task: Meta-World's name.
        goals: (2, 3) corners of the box that the object's goals lie in, in metres.
        hand_at_goal: (3,) where the hand's goal is, from the object's goal, in metres.
        success_distance, goal_scale: as for `GoalEnv`.
        goal: "hand_object" or "object".
        render_mode: None, "rgb_array" or "human".

    Raises:
        ValueError: `goal` is another word.
    """

    def __init__(
        self,
        task: str,
        goals: ArrayLike,
        hand_at_goal: ArrayLike,
        success_distance: float,
        goal_scale: float,
        goal: str,
        render_mode: str | None,
        judged: slice | None = None,
    ) -> None:
        if goal not in ("object", "hand_object"):
            raise ValueError(f'goal is {goal!r}, but must be "hand_object" or "object".')
        self.goal = goal
        self._hand_at_goal = np.array(hand_at_goal)  # from the object's goal, in metres
        low, high = np.array(goals, dtype=np.float64)
        if goal == "hand_object":
            low = np.concatenate([low + self._hand_at_goal, low])
            high = np.concatenate([high + self._hand_at_goal, high])
        rounding = 1e-3
        super().__init__(
            make_simulator(task, render_mode),
            desired_goal_space=gym.spaces.Box(
                (low - rounding).astype(np.float32), (high + rounding).astype(np.float32)
            ),
            observation_dim=22,
            goals=Goals(
                success_distance,
                measured=slice(-3, None),
                judged=judged,
                includes_boundary=True,
                scale=goal_scale,
                hand_object=(HAND, OBJECT),
            ),
        )

    def _reset_simulator(self, seed: int | None, options: dict[str, Any]) -> Any:
        import mujoco

        robot: Any = self.simulator
        if seed is not None:
            robot.seed(seed)
        robot.reset()
        # The object has been put in its place, but nothing has been computed from that yet.
        mujoco.mj_forward(robot.model, robot.data)
        raw = robot._get_obs()
        raw[FRAME : 2 * FRAME] = raw[:FRAME]  # nothing came before
        return raw

    def _observe(self, raw: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        observation = np.concatenate([raw[:11], raw[FRAME : FRAME + 11]])
        thing = self._object(raw)
        return observation, thing if self.goal == "object" else np.concatenate([raw[HAND], thing])

    def _object(self, raw: Any) -> NDArray[Any]:
        """The object's xyz (3,), where its goal is measured from."""
        return np.array(raw[OBJECT])

    def _draw_goal(self, raw: Any) -> NDArray[Any]:
        thing = self._object_goal()
        if self.goal == "object":
            return thing
        return np.concatenate([thing + self._hand_at_goal, thing])

    def _object_goal(self) -> NDArray[Any]:
        raise NotImplementedError

    def _show_goal(self, goal: FloatArray) -> None:
        show_goal(self.simulator, goal[-3:])

    def _at_joint(self, joint: str, position: float) -> NDArray[Any]:
        """Where the object would be with its joint at `position`; leaves the robot as it is."""
        import mujoco

        robot: Any = self.simulator
        angle = robot.data.joint(joint).qpos
        before = angle.copy()
        angle[:] = position
        mujoco.mj_kinematics(robot.model, robot.data)
        raw = np.zeros(FRAME)
        raw[OBJECT] = robot._get_pos_objects()
        angle[:] = before
        mujoco.mj_kinematics(robot.model, robot.data)
        return self._object(raw)


class MetaWorldPushEnv(SawyerEnv):
    """`odac/MetaWorldPush-v0`: push a puck to a place on the table, from above and with a gripper.

    Puck uniform in x ± 0.1, y 0.6 to 0.7, goal in x ± 0.1, y 0.8 to 0.9, at least 0.15 m apart;
    reached within 0.05 m.
    """

    def __init__(self, goal: str = "hand_object", render_mode: str | None = None) -> None:
        EzPickle.__init__(self, goal, render_mode)
        super().__init__(
            task="push-v3",
            goals=[(-0.1, 0.8, 0.01), (0.1, 0.9, 0.03)],
            hand_at_goal=(0.0, 0.0, 0.03),
            success_distance=0.05,
            goal_scale=0.15,
            goal=goal,
            render_mode=render_mode,
        )

    def _object_goal(self) -> NDArray[Any]:
        target: NDArray[Any] = self.simulator._target_pos  # type: ignore[attr-defined]
        return target


class _TwoWayEnv(SawyerEnv):
    """A handle on a joint that goes two ways."""

    TASKS: ClassVar[dict[str, dict[str, Any]]]
    SUCCESS_DISTANCE: ClassVar[float]
    JUDGED: ClassVar[slice | None] = None

    def __init__(
        self, direction: str = "open", goal: str = "hand_object", render_mode: str | None = None
    ) -> None:
        EzPickle.__init__(self, direction, goal, render_mode)
        if direction not in self.TASKS:
            raise ValueError(f'direction is {direction!r}, but must be "open" or "close".')
        self.direction = direction
        task = dict(self.TASKS[direction])
        self._joint: tuple[str, float] = task.pop("joint")
        super().__init__(
            **task,
            success_distance=self.SUCCESS_DISTANCE,
            goal_scale=0.2,
            goal=goal,
            render_mode=render_mode,
            judged=self.JUDGED,
        )

    def _object_goal(self) -> NDArray[Any]:
        return self._at_joint(*self._joint)


class SawyerFaucetEnv(_TwoWayEnv):
    """`odac/SawyerFaucet-v0`: turn a faucet's handle as far as it goes.

    The faucet's base is uniform in x ± 0.05 (open) or ± 0.1 (close) and y 0.8 to 0.85; the goal is
    the handle's position at the limit of its joint, reached within 0.07 m.

    Args:
        direction: "open" or "close".
        goal, render_mode: as for every Sawyer task.
    """

    SUCCESS_DISTANCE = 0.07
    TASKS: ClassVar = {
        "open": {
            "task": "faucet-open-v3",
            "joint": ("knob_Joint_1", 1.57),
            "goals": [(0.085, 0.785, 0.144), (0.185, 0.835, 0.144)],
            "hand_at_goal": (0.01, 0.01, 0.035),
        },
        "close": {
            "task": "faucet-close-v3",
            "joint": ("knob_Joint_1", -1.57),
            "goals": [(-0.275, 0.785, 0.114), (-0.075, 0.835, 0.114)],
            "hand_at_goal": (0.04, 0.0, 0.07),
        },
    }

    def _object(self, raw: Any) -> NDArray[Any]:
        # Meta-World measures the opened handle from a point a little off the one it shows.
        offset = (-0.04, 0.0, 0.03) if self.direction == "open" else (0.0, 0.0, 0.0)
        handle: NDArray[Any] = raw[OBJECT] + np.array(offset)
        return handle


class SawyerWindowEnv(_TwoWayEnv):
    """`odac/SawyerWindow-v0`: slide a window as far as it goes.

    The window is uniform in x ± 0.1, y 0.7 to 0.9 (open) or at x 0, y 0.75 to 0.9 (close); the goal
    is the handle's position at the limit of its slide, reached within 0.05 m along the slide.

    Args:
        direction: "open" or "close".
        goal, render_mode: as for every Sawyer task.
    """

    SUCCESS_DISTANCE = 0.05
    JUDGED = slice(-3, -2)  # x, along which the window slides
    TASKS: ClassVar = {
        "open": {
            "task": "window-open-v3",
            "joint": ("window_slide", 0.2),
            "goals": [(0.06, 0.604, 0.16), (0.26, 0.804, 0.16)],
            "hand_at_goal": (0.01, -0.03, -0.07),
        },
        "close": {
            "task": "window-close-v3",
            "joint": ("window_slide", 0.0),
            "goals": [(0.01, 0.654, 0.2), (0.01, 0.804, 0.2)],
            "hand_at_goal": (-0.01, -0.04, -0.07),
        },
    }


def make_simulator(task: str, render_mode: str | None) -> gym.Env[Any, Any]:
    """Meta-World's environment `task` without its reward, drawing from its own seeded generator."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    base: Any = ALL_V3_ENVIRONMENTS[task]

    class LeanSawyer(base):  # type: ignore[misc]
        def evaluate_state(self, obs: Any, action: Any) -> tuple[float, dict[str, Any]]:
            return 0.0, {}

        def _get_curr_obs_combined_no_goal(self) -> NDArray[Any]:
            frame = np.zeros(FRAME)
            opening = self.data.body("rightclaw").xpos - self.data.body("leftclaw").xpos
            frame[HAND] = self.get_endeff_pos()
            frame[GRIPPER] = min(float(np.linalg.norm(opening)) / 0.1, 1.0)
            frame[OBJECT] = self._get_pos_objects()
            frame[ROTATION] = self._get_quat_objects()
            return frame

        def _get_pos_objects(self) -> NDArray[Any]:
            places: NDArray[Any] = np.asarray(super()._get_pos_objects())
            if places.size != 3:
                raise ValueError(
                    f"task is '{task}', which has {places.size // 3} objects, but must have one."
                )
            return places

    class LeanPush(LeanSawyer):
        def _get_quat_objects(self) -> NDArray[Any]:
            return _quaternion(self.data.geom("objGeom").xmat)

    lean = LeanPush if task == "push-v3" else LeanSawyer
    robot: Any = lean(render_mode=render_mode, camera_id=FREE_CAMERA)
    robot.mujoco_renderer.default_cam_config = CAMERA
    robot.max_path_length = NEVER
    # Meta-World wants to be given its random places from outside; these make it draw its own.
    robot._set_task_called = True
    robot._freeze_rand_vec = False
    robot.seeded_rand_vec = True
    robot.seed(int(np.random.SeedSequence().generate_state(1)[0]))
    return robot  # type: ignore[no-any-return]


def show_goal(simulator: Any, place: ArrayLike) -> None:
    """Marks a place (3,) in the picture of a simulator."""
    simulator._target_pos = np.array(place, dtype=np.float64)
    for name, where in simulator._target_site_config:  # the faucet has a second one, to be hidden
        mark = simulator.model.site(name)
        mark.pos, mark.size, mark.rgba = where, MARK_SIZE, MARK
        simulator.data.site(name).xpos = where  # until the next step finds it in the model


def _quaternion(matrix: NDArray[Any]) -> NDArray[Any]:
    """What scipy makes of a rotation matrix (9,), xyzw with the largest positive, but faster."""
    import mujoco

    wxyz = np.empty(4)
    mujoco.mju_mat2Quat(wxyz, matrix)
    xyzw = wxyz[[1, 2, 3, 0]]
    signed: NDArray[Any] = xyzw * np.sign(xyzw[np.abs(xyzw).argmax()])
    return signed
