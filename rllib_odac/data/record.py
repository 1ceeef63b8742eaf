"""`record`: episodes of a policy, or of random actions, as a data set on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from rllib_odac.envs.actions import actions_of
from rllib_odac.replay.episodes import COLUMNS
from rllib_odac.storage import PLACE, Storage

ROWS_PER_FILE = 100_000

Policy = Callable[[dict[str, Any]], Any]


def record(
    env: gym.Env[Any, Any],
    steps: int,
    out: PLACE,
    policy: Policy | None = None,
    random_share: float = 0.0,
    seed: int = 0,
    max_episode_steps: int | None = None,
    on_step: Callable[[int], object] = lambda steps: None,
) -> dict[str, Any]:
    """Records whole episodes until there are so many steps.

    The data set is a folder of Parquet files with a row for each state: `episode`, `observation`,
    `achieved_goal`, `desired_goal`, `actions` (of no meaning in the last row of an episode) and
    `terminated` (true in the last row of one that ended), with `dataset.json` beside them.

    Args:
        env: A goal environment.
        steps: Steps, at least.
        out: Path or URI of a new folder.
        policy: Gives the action for an observation; by default actions are uniformly random.
        random_share: Share of steps with a random action instead.
        seed: Of resets and random actions.
        max_episode_steps: Cuts episodes that go on for longer.
        on_step: Called with the steps made, after each.

    Returns:
        `episodes`, `steps`, `success_rate` of the last states, and `env`.

    Raises:
        ValueError: If `out` holds something, cannot be written, or an argument is wrong.
    """
    place = Storage.of(out)
    if steps < 1:
        raise ValueError(f"steps is {steps}, but must be at least 1.")
    if not 0 <= random_share <= 1:
        raise ValueError(f"random_share is {random_share}, but must be in [0, 1].")
    try:
        if place.size is not None or (place.is_directory and place.names()):
            raise ValueError(f"out is '{place}', which is there already; give a new folder.")
        place.check_writable()
    except (OSError, NotImplementedError) as error:
        raise ValueError(f"out is '{place}', which cannot be written: {error}.") from None
    rng = np.random.default_rng(seed)
    action_space = actions_of(env.action_space)
    writer = _Writer(place)
    made = successes = 0
    while made < steps:
        state, _ = env.reset(seed=int(rng.integers(2**31)))
        states, actions, ended, terminated = [state], [], False, False
        while not ended:
            if policy is None or rng.random() < random_share:
                action = action_space.to_env(action_space.uniform(rng, 1))[0]
            else:
                action = np.asarray(policy(state))
            state, _, terminated, truncated, info = env.step(action.astype(env.action_space.dtype))
            states.append(state)
            actions.append(action)
            made += 1
            on_step(made)
            ended = bool(terminated or truncated or len(actions) == max_episode_steps)
        successes += bool(info.get("is_success", info.get("success", False)))
        writer.add(states, actions, bool(terminated))
    writer.close()
    summary = {
        "env": getattr(env.spec, "id", None),
        "episodes": writer.episodes,
        "steps": made,
        "success_rate": successes / writer.episodes,
        "action_space": type(env.action_space).__name__,
        "action_low": action_space.low.tolist(),
        "action_high": action_space.high.tolist(),
    }
    (place / "dataset.json").write_json(summary)
    return summary


class _Writer:
    """Writes episodes to Parquet files of about equal size."""

    def __init__(self, place: Storage) -> None:
        self._place = place
        self._rows: list[dict[str, Any]] = []
        self._files = 0
        self.episodes = 0

    def add(self, states: list[dict[str, Any]], actions: list[Any], terminated: bool) -> None:
        actions = [*actions, np.zeros_like(actions[0])]
        for index, (state, action) in enumerate(zip(states, actions, strict=True)):
            row = {name: np.ravel(state[name]).astype(np.float32) for name in COLUMNS}
            row["actions"] = np.ravel(action).astype(np.float32)
            is_last = index == len(states) - 1
            self._rows.append(
                row | {"episode": self.episodes, "terminated": terminated and is_last}
            )
        self.episodes += 1
        if len(self._rows) >= ROWS_PER_FILE:
            self.close()

    def close(self) -> None:
        """Writes what is left."""
        import pyarrow
        import pyarrow.parquet

        if not self._rows:
            return
        columns = {name: [row[name] for row in self._rows] for name in self._rows[0]}
        file = self._place / f"part-{self._files:05d}.parquet"
        pyarrow.parquet.write_table(pyarrow.table(columns), file.path, filesystem=file.filesystem)
        self._rows, self._files = [], self._files + 1
