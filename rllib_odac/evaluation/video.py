"""Videos and picture strips of episodes."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rllib_odac.envs.headless import gl_error

Frame: TypeAlias = NDArray[np.uint8]

GAP = 6  # pixels between the frames of a strip


def render_frame(env: gym.Env[Any, Any]) -> Frame:
    """The present picture of `env`, made with `render_mode="rgb_array"`.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        ValueError: the environment was made without that render mode.
        RuntimeError: MuJoCo finds no OpenGL library; names the Debian packages that bring one.
    """
    if env.render_mode != "rgb_array":
        raise ValueError(f"To be filmed, {env} must be made with render_mode='rgb_array'.")
    try:
        frame: Any = env.render()
    except Exception as error:
        if (explanation := gl_error(error)) is not None:
            raise explanation from error
        raise
    return np.asarray(frame, dtype=np.uint8)


def film_random(env: gym.Env[Any, Any], steps: int, seed: int) -> list[Frame]:
    """The pictures of one episode with uniformly random actions, made with "rgb_array".

    Args:
        env: made with `render_mode="rgb_array"`.
        steps: where to stop if the episode goes on.
        seed: of the episode and of the actions.

    Returns:
        The first state's picture and one after every step, as `render_frame` makes them.

    Raises:
        ValueError, RuntimeError: as `render_frame`.
    """
    env.reset(seed=seed)
    env.action_space.seed(seed)
    frames = [render_frame(env)]
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        frames.append(render_frame(env))
        if terminated or truncated:
            break
    return frames


def record_video(path: str | PathLike[str], frames: Iterable[Frame], fps: float = 10) -> Path:
    """Write frames as a video.

    Args:
        path: ends in ".mp4" (H.264) or ".gif"; folders are created.
        frames: uint8 arrays (height, width, 3), all of one size.
        fps: frames a second.

    Returns:
        The path written.

    Raises:
        ValueError: there are no frames, they differ in size or type, or the suffix is another.
    """
    import imageio.v2 as imageio

    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in (".mp4", ".gif"):
        raise ValueError(f"A video's name must end in .mp4 or .gif, not as {target.name!r} does.")
    if not 0 < fps < float("inf"):
        raise ValueError(f"fps must be a positive number, not {fps!r}.")
    pictures = _checked(frames)
    target.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".gif":
        imageio.mimwrite(target, pictures, format="GIF", duration=1000 / fps, loop=0)
        return target
    # The colour format that every player knows halves the resolution, so both sides must be even.
    # imageio would by default scale to multiples of 16, which blurs.
    height, width = pictures[0].shape[:2]
    pad = ((0, height % 2), (0, width % 2), (0, 0))
    make_writer: Any = imageio.get_writer  # annotated too narrowly for what its plugins take
    with make_writer(
        target,
        format="FFMPEG",
        fps=fps,
        codec="libx264",
        pixelformat="yuv420p",
        macro_block_size=1,
        quality=8,
    ) as writer:
        for picture in pictures:
            writer.append_data(np.pad(picture, pad, mode="edge"))
    return target


def picture_strip(path: str | PathLike[str], frames: Iterable[Frame], columns: int = 6) -> Path:
    """Write evenly spaced frames side by side as a PNG, each with its number as "t = 0" below.

    Args:
        path: ends in ".png"; folders are created.
        frames: uint8 arrays (height, width, 3), all of one size, one per step.
        columns: how many to show, the first and the last among them; fewer if there are fewer.

    Returns:
        The path written.

    Raises:
        ValueError: there are no frames, they differ in size or type, or the suffix is another.
    """
    from PIL import Image, ImageDraw, ImageFont

    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ValueError(f"A picture strip's name must end in .png, not as {target.name!r} does.")
    if columns < 1:
        raise ValueError(f"A picture strip needs at least 1 column, not {columns}.")
    pictures = _checked(frames)
    steps = np.unique(np.linspace(0, len(pictures) - 1, columns).round().astype(int)).tolist()
    height, width = pictures[0].shape[:2]
    font_size = max(11, height // 16)
    caption = 2 * font_size
    size = (len(steps) * (width + GAP) - GAP, height + caption)
    strip = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(font_size)
    for column, step in enumerate(steps):
        left = column * (width + GAP)
        strip.paste(Image.fromarray(pictures[step]), (left, 0))
        centre = (left + width / 2, height + caption / 2)
        draw.text(centre, f"t = {step}", fill=(60, 60, 60), font=font, anchor="mm")
    target.parent.mkdir(parents=True, exist_ok=True)
    strip.save(target)
    return target


def _checked(frames: Iterable[Frame]) -> list[Frame]:
    pictures = [np.asarray(frame) for frame in frames]
    if not pictures:
        raise ValueError("There are no frames to show.")
    first = pictures[0].shape
    for picture in pictures:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                "Frames must be uint8 arrays of shape (height, width, 3), "
                f"not {picture.dtype} of shape {picture.shape}."
            )
        if picture.shape != first:
            raise ValueError(f"Frames must be of one size, not {first} and {picture.shape}.")
    return pictures
