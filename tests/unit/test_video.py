"""Videos and picture strips."""

from __future__ import annotations

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np
import pytest

from rllib_odac.envs.box2d import Box2DEnv
from rllib_odac.evaluation.video import GAP, picture_strip, record_video, render_frame


def frames(count: int = 10, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """Frames of one brightness each, growing."""
    return [np.full((height, width, 3), 20 * i, np.uint8) for i in range(count)]


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "A.MP4"])
def test_video_round_trip(tmp_path, name):
    path = record_video(tmp_path / "new" / name, iter(frames()), fps=10)
    read = imageio.mimread(path)
    assert len(read) == 10
    assert read[0].shape[:2] == (64, 96)
    for i, frame in enumerate(read):
        assert abs(float(frame[..., :3].mean()) - 20 * i) < 4


def test_odd_sizes_are_padded_by_one_pixel(tmp_path):
    path = record_video(tmp_path / "a.mp4", frames(3, 63, 95), fps=5)
    assert imageio.mimread(path)[0].shape == (64, 96, 3)


@pytest.mark.parametrize(
    ("count", "columns", "shown"), [(10, 4, 4), (3, 6, 3), (1, 6, 1), (9, 1, 1)]
)
def test_strip_shows_evenly_spaced_frames(tmp_path, count, columns, shown):
    strip = imageio.imread(picture_strip(tmp_path / "new" / "a.png", frames(count), columns))
    assert strip.shape[1] == shown * (96 + GAP) - GAP
    assert strip.shape[0] > 64
    assert (strip[64:] < 128).any()  # captions
    steps = np.linspace(0, count - 1, shown).round()
    for column, step in enumerate(steps):
        left = column * (96 + GAP)
        assert (strip[:64, left : left + 96] == 20 * step).all()
    if shown > 1:
        assert (strip[:, 96 : 96 + GAP] == 255).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: record_video(p / "a.avi", frames()), "end in .mp4 or .gif"),
        (lambda p: record_video(p / "a.mp4", []), "no frames"),
        (lambda p: record_video(p / "a.mp4", frames(), fps=0), "fps must be"),
        (lambda p: record_video(p / "a.mp4", frames() + frames(1, 32)), "of one size"),
        (lambda p: record_video(p / "a.mp4", [np.zeros((4, 4, 3))]), "must be uint8"),
        (lambda p: picture_strip(p / "a.jpg", frames()), "end in .png"),
        (lambda p: picture_strip(p / "a.png", frames(), 0), "at least 1 column"),
    ],
)
def test_bad_input_is_a_value_error(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(tmp_path)


def test_render_frame():
    env = Box2DEnv(render_mode="rgb_array")
    env.reset(seed=0)
    np.testing.assert_array_equal(render_frame(env), env.render())
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        render_frame(Box2DEnv())


def test_missing_gl_library_is_explained():
    class Broken(gym.Env):
        render_mode = "rgb_array"

        def render(self):
            exec("raise AttributeError('glGetError')", {"__name__": "OpenGL.raw.GL"})

    with pytest.raises(RuntimeError, match="libegl1"):
        render_frame(Broken())
