"""Episodes as blocks of rows, each of which travels to a replay's device in one copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rllib_odac.replay.episodes import GoalEpisode

BLOCK_ROWS = 65_536  # as many states as a block holds, or an eighth of the replay if that is less


class Block(NamedTuple):
    """E episodes with S states and T = S − E transitions, on the host.

    Attributes:
        states: (S, W) float32, the columns of a replay side by side; the actions that would leave
            an episode's last state are zeros.
        entries: (T, 3) int64, of each transition the row of its state and those of its episode's
            first and last one, counted from the block's first.
        terminated: (T,) bool.
        episodes: Of each its steps and whether it terminated.
    """

    states: Tensor
    entries: Tensor
    terminated: Tensor
    episodes: list[tuple[int, bool]]


def in_blocks(episodes: Iterable[GoalEpisode], capacity: int) -> Iterator[list[GoalEpisode]]:
    """Groups of episodes that fit into a replay together, those without a step left out.

    Raises:
        ValueError: If an episode does not fit by itself.
    """
    group: list[GoalEpisode] = []
    rows = 0
    for episode in episodes:
        steps = len(episode)
        if steps == 0:
            continue
        if steps + 1 > capacity:
            raise ValueError(
                f"An episode of {steps} steps does not fit in a replay with capacity "
                f"{capacity}, which must be at least {steps + 1}."
            )
        if group and rows + steps + 1 > min(capacity // 8, BLOCK_ROWS):
            yield group
            group, rows = [], 0
        group.append(episode)
        rows += steps + 1
    if group:
        yield group


def pack(episodes: Sequence[GoalEpisode], widths: Mapping[str, int], pinned: bool) -> Block:
    """A block of episodes with at least a step each.

    Args:
        episodes: E.
        widths: Of the columns, in their order.
        pinned: Whether a GPU is to fetch it by itself while the host goes on.

    Raises:
        ValueError: If a number is NaN or infinite.
    """
    steps = np.array([len(episode) for episode in episodes])
    ends = np.cumsum(steps + 1)
    states = torch.zeros(int(ends[-1]), sum(widths.values()), pin_memory=pinned)
    rows = states.numpy()
    right = zip(widths.items(), accumulate(widths.values()), strict=True)
    columns = {name: rows[:, end - width : end] for (name, width), end in right}
    for end, length, episode in zip(ends.tolist(), steps.tolist(), episodes, strict=True):
        first = end - length - 1
        for name, column in columns.items():
            values = getattr(episode, name)
            column[first : first + len(values)] = values
    if not np.isfinite(rows).all():
        name = next(name for name, column in columns.items() if not np.isfinite(column).all())
        raise ValueError(f"The environment gave NaN or infinity in '{name}'.")
    entries = torch.empty(int(steps.sum()), 3, dtype=torch.int64, pin_memory=pinned)
    numbers = entries.numpy()
    last = np.repeat(ends - 1, steps)
    numbers[:, 0] = np.arange(len(numbers)) + np.repeat(np.arange(len(steps)), steps)
    numbers[:, 1] = last - np.repeat(steps, steps)
    numbers[:, 2] = last
    terminated = torch.zeros(len(numbers), dtype=torch.bool, pin_memory=pinned)
    terminated.numpy()[np.cumsum(steps) - 1] = [episode.terminated for episode in episodes]
    ended = [(len(episode), episode.terminated) for episode in episodes]
    return Block(states, entries, terminated, ended)


def write(ring: Tensor, number: int, values: Tensor) -> None:
    """Writes values (N, ...) to a ring from the place of this number on, round its end if needed.

    The host does not wait for a GPU where they are pinned.
    """
    start = number % len(ring)
    fitting = min(len(values), len(ring) - start)
    ring[start : start + fitting].copy_(values[:fitting], non_blocking=True)
    if fitting < len(values):
        ring[: len(values) - fitting].copy_(values[fitting:], non_blocking=True)
