"""`odac render` as a user runs it: real pictures, without a display."""

from __future__ import annotations

import os

import imageio.v2 as imageio
import numpy as np
import pytest

from rllib_odac import make_env
from rllib_odac.envs.headless import _has_library
from tests.system.commands import odac

pytestmark = pytest.mark.system
needs_gl = pytest.mark.skipif(
    not any(map(_has_library, ("EGL", "OSMesa"))), reason="no OpenGL library without a display"
)


@pytest.mark.parametrize(
    ("env", "arguments", "name"),
    [
        ("odac/Box2D-v0", ["--set", "walls=big_u", "--episodes", 2], "odac-Box2D-v0"),
        pytest.param("FetchReach-v4", ["--episodes", 2], "FetchReach-v4", marks=needs_gl),
        pytest.param("odac/FetchPush-v0", ["--episodes", 2], "odac-FetchPush-v0", marks=needs_gl),
        pytest.param("odac/Ant-v0", ["--episodes", 2], "odac-Ant-v0", marks=needs_gl),
    ],
)
def test_render_films_random_actions(tmp_path, env, arguments, name):
    process = odac("render", env, *arguments, "--steps", 7, "--out", tmp_path / "new")
    assert process.stderr == ""
    strip, film = (tmp_path / "new" / f"{name}.{suffix}" for suffix in ("png", "mp4"))
    assert process.stdout.split() == [str(strip), str(film)]
    pictures = imageio.mimread(film, memtest=False)
    assert len(pictures) == 2 * (7 + 1)
    assert pictures[0].std() > 10  # not all of one colour
    assert (pictures[0] != pictures[7]).any()
    assert (pictures[0] != pictures[8]).any()  # another episode
    width = 6 * pictures[0].shape[1]
    assert imageio.imread(strip).shape[1] == pytest.approx(width, rel=0.05)


@needs_gl
@pytest.mark.filterwarnings("error::UserWarning")  # Gymnasium's for a render mode it does not know
@pytest.mark.parametrize(
    "name", ["Ant", "FetchPush", "SawyerPush", "MetaWorldPush", "SawyerFaucet", "SawyerWindow"]
)
def test_the_goal_is_in_the_picture(name):
    env = make_env(f"odac/{name}-v0", render_mode="rgb_array")
    space = env.observation_space["desired_goal"]

    def picture(goal):
        env.reset(seed=0, options={"goal": goal})
        return env.render()

    picture_low, picture_high = picture(space.low), picture(space.high)
    assert picture_low.dtype == np.uint8
    assert picture_low.shape == (480, 480, 3)
    assert picture_low.std() > 10  # not all of one colour
    assert (picture_low != picture_high).any(-1).sum() > 20  # the same start, but another goal
    assert np.array_equal(env.render(), picture_high)  # the marks of former pictures are gone
    assert np.array_equal(picture(space.low), picture_low)
    env.close()


def test_the_same_seed_gives_the_same_picture(tmp_path):
    strips = []
    for seed, folder in ((3, "a"), (3, "b"), (4, "c")):
        arguments = ("--seed", seed, "--steps", 5, "--out", tmp_path / folder)
        odac("render", "odac/Box2D-v0", *arguments)
        strips.append((tmp_path / folder / "odac-Box2D-v0.png").read_bytes())
    assert strips[0] == strips[1] != strips[2]


def test_a_missing_gl_library_is_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glfw")  # needs a display
    monkeypatch.setenv("DISPLAY", "")
    process = odac("render", "FetchReach-v4", cwd=tmp_path, check=False)
    assert process.returncode == 2
    assert "install the Debian packages libegl1 and libgl1" in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["Box2D"], "no environment 'Box2D'; did you mean odac/Box2D-v0?"),
        (["CartPole-v1"], "CartPole-v1 carries no goals"),
        (["odac/Box2D-v0", "--episodes", "0"], "episodes is 0, but must be at least 1"),
        (["odac/Box2D-v0", "--steps", "0"], "steps is 0, but must be at least 1"),
        (["odac/Box2D-v0", "--seed", "-1"], "seed is -1, but must be at least 0"),
        (["odac/Box2D-v0", "--set", "walls"], "'walls', but must have the form key=value"),
        (["odac/Box2D-v0", "--set", "walls=maze"], "Box2D knows no walls 'maze'"),
        (["odac/Box2D-v0", "--set", "wals=box"], "takes no argument 'wals'"),
        (["odac/Box2D-v0", "--set", "render_mode=human"], "render_mode is no argument to set"),
    ],
)
def test_bad_input_gets_one_sentence(tmp_path, arguments, sentence):
    process = odac("render", *arguments, cwd=tmp_path, check=False)
    assert process.returncode == 2
    assert sentence in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1
    assert not os.listdir(tmp_path)
