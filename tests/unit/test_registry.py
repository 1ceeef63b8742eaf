"""Environments by name, the checks on them and what users read when something is wrong."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Text
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rllib_odac.envs import headless, make_env, make_vector_env, register_envs
from rllib_odac.envs.box2d import Box2DEnv, Box2DVectorEnv
from rllib_odac.envs.headless import gl_error, set_headless_gl
from rllib_odac.envs.registry import OWN_ENVS, check_goal_env, known_env_ids

XY = Box(-1, 1, (2,))
GOALS = {"observation": XY, "achieved_goal": XY, "desired_goal": XY}


class FakeEnv(gym.Env):
    """Spaces and nothing else."""

    def __init__(self, observation: Any = None, action: Any = XY):
        self.observation_space = Dict(GOALS) if observation is None else observation
        self.action_space = action
        self.closed = False

    def close(self):
        self.closed = True


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )


# Registration ---------------------------------------------------------------------------------


def test_registering_twice_changes_nothing():
    register_envs()
    before = dict(gym.registry)
    register_envs()
    assert before == dict(gym.registry)
    assert OWN_ENVS.keys() <= gym.registry.keys()


def test_entry_points_are_strings():
    """Functions would not survive the way to another process."""
    for env_id in OWN_ENVS:
        spec = gym.spec(env_id)
        assert isinstance(spec.entry_point, str)
        assert isinstance(spec.vector_entry_point, str | None)


def test_importing_the_environments_is_light_and_registers_them():
    code = """
import sys, gymnasium
import rllib_odac.envs
assert not {"ray", "torch", "mujoco", "gymnasium_robotics", "metaworld"} & set(sys.modules)
gymnasium.make("rllib_odac.envs:odac/Box2D-v0").reset()
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_known_environments_carry_goals():
    ids = known_env_ids()
    assert len(ids) == len(set(ids))
    assert ids[: len(OWN_ENVS)] == list(OWN_ENVS)
    assert {"FetchReach-v4", "FetchPush-v4", "PointMaze_UMaze-v3", "HandReach-v3"} <= set(ids)
    assert {"AntMaze_UMaze-v5", "HandManipulateBlock-v1"} <= set(ids)
    assert not {"FetchReach-v1", "FetchReachDense-v4", "FrankaKitchen-v1"} & set(ids)


# Making them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("env", ["odac/Box2D-v0", "rllib_odac:odac/Box2D-v0", Box2DEnv])
def test_make_env(env):
    made = make_env(env, render_mode="rgb_array", walls="bar")
    assert isinstance(made.unwrapped, Box2DEnv)
    assert made.unwrapped.walls == "bar"
    assert made.render_mode == "rgb_array"


@pytest.mark.parametrize("name", ["FetchReach-v4", "gymnasium_robotics:FetchReach-v4"])
def test_robotics_by_bare_and_by_full_name(name):
    env = make_env(name, max_episode_steps=3)
    observation, _ = env.reset(seed=0)
    assert observation["observation"].dtype == np.float64  # as it is; others cast
    assert [env.step(env.action_space.sample())[3] for _ in range(3)] == [False, False, True]
    env.close()


def test_robotics_import_is_silent():
    code = "from rllib_odac.envs import make_env; make_env('FetchReach-v4')"
    done = run(code)
    assert done.returncode == 0
    assert "Adroit" not in done.stdout + done.stderr


def test_callables_get_the_arguments():
    seen = {}

    def maker(**kwargs):
        seen.update(kwargs)
        return FakeEnv()

    make_env(maker, render_mode="rgb_array", size=3)
    assert seen == {"render_mode": "rgb_array", "size": 3}
    seen.clear()
    make_env(maker)
    assert seen == {}  # no render_mode=None for those who do not take it


@pytest.mark.parametrize("env", ["odac/Box2D-v0", "rllib_odac.envs:odac/Box2D-v0"])
def test_native_vector_form_is_used(env):
    vector = make_vector_env(env, 7, walls="bar", max_episode_steps=9)
    assert isinstance(vector, Box2DVectorEnv)
    assert (vector.num_envs, vector.walls, vector.max_episode_steps) == (7, "bar", 9)


@pytest.mark.parametrize("env", [Box2DEnv, "FetchReach-v4"])
def test_others_are_vectorised_in_turn(env):
    vector = make_vector_env(env, 2)
    assert isinstance(vector, SyncVectorEnv)
    assert vector.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    observation, _ = vector.reset(seed=0)
    assert len(observation["desired_goal"]) == 2
    vector.close()


# What users read ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("Box2D", "There is no environment 'Box2D'; did you mean odac/Box2D-v0?"),
        ("odac/Box2d-v1", "There is no environment 'odac/Box2d-v1'; did you mean odac/Box2D-v0?"),
        ("FetchRech-v4", "no environment 'FetchRech-v4'; did you mean FetchReach-v4"),
        ("FetchReach-v9", "did you mean FetchReach-v4"),
        ("FetchReach", "did you mean FetchReach-v4"),
        ("pointmaze_umaze", "did you mean PointMaze_UMaze-v3"),
        ("qqqq", "if another package registers it, write 'its_module:qqqq'."),
        ("", "There is no environment ''"),
        ("no_such_module:Env-v0", "no_such_module:Env-v0 needs the package 'no_such_module'"),
        ("FetchReach-v1", "FetchReach-v1 needs the package 'mujoco_py', which is not installed."),
        ("CartPole-v1", "CartPole-v1 carries no goals: its observations are a Box instead"),
        (3, "An environment is an id or a callable that makes one, not 3."),
        (lambda: 3, "is no gymnasium.Env but of type int."),
    ],
)
@pytest.mark.parametrize("make", [make_env, lambda env: make_vector_env(env, 2)])
def test_bad_environments_are_explained(make, env, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make(env)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [make_env, lambda env, **kw: make_vector_env(env, 2, **kw)])
def test_unknown_arguments_are_explained(make):
    with pytest.raises(ValueError, match=r"^odac/Box2D-v0 takes no argument 'wals'\.$"):
        make("odac/Box2D-v0", wals="box")
    with pytest.raises(ValueError, match=r"^Box2D knows no walls 'maze'"):
        make("odac/Box2D-v0", walls="maze")
    with pytest.raises(ValueError, match=r"Box2DEnv cannot be made from .*'wals'"):
        make(Box2DEnv, wals="box")


def test_missing_optional_package_names_the_extra(monkeypatch):
    for module in ("metaworld", "metaworld.envs", "metaworld.env_dict"):
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    gym.register("test/NeedsMetaworld-v0", entry_point="metaworld.envs:Anything")
    try:
        for name in ("test/NeedsMetaworld-v0", "metaworld:Meta-World/MT1", "odac/SawyerPush-v0"):
            with pytest.raises(ValueError, match="needs the package 'metaworld'") as caught:
                make_env(name)
            assert 'pip install "rllib-odac[sawyer]"' in str(caught.value)
    finally:
        del gym.registry["test/NeedsMetaworld-v0"]


def test_missing_robotics_is_explained_and_does_not_hide_our_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    monkeypatch.delitem(gym.registry, "FetchReach-v4", raising=False)
    assert known_env_ids()[0] == "odac/Box2D-v0"
    with pytest.raises(ValueError, match="pip install gymnasium-robotics"):
        make_env("FetchReach-v4")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (FakeEnv(XY), "x carries no goals: its observations are a Box instead of a Dict"),
        (
            FakeEnv(Dict({"observation": XY, "state": XY})),
            "have 'observation', 'state' but not 'achieved_goal', 'desired_goal'.",
        ),
        (FakeEnv(Dict({})), "its observations have nothing but not 'observation'"),
        (
            FakeEnv(Dict({**GOALS, "desired_goal": Box(-1, 1, (3,))})),
            "'achieved_goal' is (2,) and 'desired_goal' is (3,).",
        ),
        (
            FakeEnv(Dict({**GOALS, "observation": Dict(GOALS)})),
            "its 'observation' is a Dict that is no vector",
        ),
        (
            FakeEnv(action=Text(3)),
            "x has Text actions, but ODAC needs a bounded Box, or a",
        ),
        (FakeEnv(action=Discrete(2000)), "x has 2,000 Discrete actions, but ODAC takes at most"),
        (FakeEnv(action=Box(-np.inf, 1, (2,))), "x has an action with a range of inf, but ODAC"),
    ],
)
def test_check_goal_env(env, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        check_goal_env(env, "x")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_check_goal_env_accepts_single_and_vector():
    check_goal_env(Box2DEnv(), "x")
    check_goal_env(Box2DVectorEnv(3), "x")


def test_refused_environments_are_closed():
    env = FakeEnv(XY)
    with pytest.raises(ValueError, match="carries no goals"):
        make_env(lambda: env)
    assert env.closed


def test_vector_env_needs_a_number():
    with pytest.raises(ValueError, match="at least 1 environment, not 0"):
        make_vector_env("odac/Box2D-v0", 0)


# Rendering without a display ------------------------------------------------------------------


@pytest.fixture
def headless_machine(monkeypatch):
    # Set before deleting, so that what the tested function sets is undone as well.
    for variable in ("DISPLAY", "MUJOCO_GL"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setattr(headless.sys, "platform", "linux")
    return monkeypatch


@pytest.mark.parametrize(
    ("libraries", "backend"),
    [({"EGL", "OSMesa"}, "egl"), ({"OSMesa"}, "osmesa"), (set(), None)],
)
def test_headless_gl_takes_what_is_there(headless_machine, libraries, backend):
    headless_machine.setattr(headless, "_has_library", libraries.__contains__)
    assert set_headless_gl() == backend == os.environ.get("MUJOCO_GL")


def test_headless_gl_respects_choices(headless_machine):
    headless_machine.setattr(headless, "_has_library", lambda name: True)
    headless_machine.setenv("MUJOCO_GL", "osmesa")
    assert set_headless_gl() == "osmesa"
    headless_machine.delenv("MUJOCO_GL")
    headless_machine.setenv("DISPLAY", ":0")
    assert set_headless_gl() is None
    headless_machine.delenv("DISPLAY")
    headless_machine.setattr(headless.sys, "platform", "darwin")
    assert set_headless_gl() is None


def test_library_is_found_without_ldconfig(monkeypatch):
    def refuse(name: str) -> None:
        raise OSError

    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert headless._has_library("EGL")
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert not headless._has_library("OSMesa")


def test_make_env_chooses_only_for_pictures(headless_machine):
    headless_machine.setattr(headless, "_has_library", lambda name: True)
    make_env("odac/Box2D-v0")
    assert "MUJOCO_GL" not in os.environ
    make_env("odac/Box2D-v0", render_mode="rgb_array")
    assert os.environ["MUJOCO_GL"] == "egl"


def error_from(module: str) -> Exception:
    """An exception as if raised inside `module`."""
    try:
        exec("raise AttributeError(\"'NoneType' object has no attribute\")", {"__name__": module})
    except AttributeError as error:
        return error
    raise AssertionError


def test_missing_gl_library_is_explained(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    for module in (
        "OpenGL.platform.egl",
        "mujoco.osmesa",
        "gymnasium.envs.mujoco.mujoco_rendering",
    ):
        explanation = gl_error(error_from(module))
        assert isinstance(explanation, RuntimeError)
        for part in ("MUJOCO_GL is osmesa", "libegl1", "libgl1", "libosmesa6"):
            assert part in str(explanation)

    def maker() -> gym.Env:
        raise error_from("OpenGL.GL")

    with pytest.raises(RuntimeError, match="libosmesa6"):
        make_env(maker)


def test_other_errors_are_left_alone():
    assert gl_error(error_from("somewhere.else")) is None

    def maker() -> gym.Env:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        make_env(maker)
