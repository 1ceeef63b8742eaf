"""Data sets of OGBench's kind, made here by its recipes instead of downloaded.

    python benchmarks/ogbench_data.py pointmaze-medium-navigate --out data/

By Park et al. 2024 (arXiv 2410.20092), appendix. In a maze an expert that knows it walks with
noise: "navigate" data go from cell to cell for long, "stitch" data hold short ways of four cells
each, so that a longer one has to be put together. A cube is carried from place to place by
OGBench's own oracles: "play" data follow plans with smooth noise, "noisy" ones rules with noise on
each action, some of them random. Needs `pip install ogbench`.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

NOISE = 0.5  # of the point's actions
EPISODES = {"navigate": (1000, 1001), "stitch": (5000, 201)}  # and rows of each
GIANT = {"navigate": (500, 2001), "stitch": (5000, 201)}
STITCH_CELLS = 4  # from start to goal
CARRYING = (1000, 1001)  # episodes with a cube, and rows of each
LARGEST_NOISE = np.array([0.1, 0.1, 0.1, 0.3, 1.0])  # of "noisy" actions: place, turn, gripper
RANDOM_SHARE = 0.1  # of "noisy" actions

Row = tuple[Any, Any, bool]  # observation, action, whether it is its episode's last


def make_data(name: str, file: Path, seed: int = 0, share: float = 1.0) -> None:
    """Writes a data set in OGBench's format.

    Args:
        name: Such as "pointmaze-medium-navigate" or "cube-single-play".
        file: An `.npz` with `observations`, `actions` and `terminals`.
        seed: Of everything random.
        share: Share of the episodes that the published data set has.
    """
    scene, size, kind = name.split("-")
    if scene == "pointmaze" and kind in EPISODES:
        rows = _walk(size, kind, seed, share)
    elif (scene, size) == ("cube", "single") and kind in ("play", "noisy"):
        rows = _carry(kind, seed, share)
    else:
        raise ValueError(
            f"name is '{name}', but must be pointmaze-SIZE-navigate, pointmaze-SIZE-stitch, "
            "cube-single-play or cube-single-noisy."
        )
    observations, actions, terminals = zip(*rows, strict=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        file,
        observations=np.array(observations, np.float32),
        actions=np.array(actions, np.float32),
        terminals=np.array(terminals),
    )


def _walk(size: str, kind: str, seed: int, share: float) -> Iterator[Row]:
    """A point in a maze, led from cell to cell."""
    import ogbench  # noqa: F401 (registers its environments)

    episodes, rows = (GIANT if size == "giant" else EPISODES)[kind]
    env: Any = gym.make(f"pointmaze-{size}-v0", terminate_at_goal=False, max_episode_steps=rows)
    np.random.seed(seed)  # OGBench draws from NumPy's global generator
    env.action_space.seed(seed)
    rng = np.random.default_rng(seed)
    cells, corners = _cells(env.unwrapped.maze_map)
    subgoal_between = functools.cache(
        lambda *ends: env.unwrapped.get_oracle_subgoal(*map(env.unwrapped.ij_to_xy, ends))[0]
    )  # a search through the maze, which takes longer than a step
    for _ in range(round(share * episodes)):
        start = cells[rng.integers(len(cells))]
        if kind == "navigate":
            goal = corners[rng.integers(len(corners))]
        else:
            near = _cells_at(env.unwrapped, start, cells, STITCH_CELLS)
            goal = near[rng.integers(len(near))]
        state, _ = env.reset(options={"task_info": {"init_ij": start, "goal_ij": goal}})
        for row in range(rows):
            place = env.unwrapped.get_xy()
            ends = map(env.unwrapped.xy_to_ij, (place, env.unwrapped.cur_goal_xy))
            way = subgoal_between(*ends) - place
            action = way / (np.linalg.norm(way) + 1e-6) + rng.normal(0, NOISE, 2)
            action = np.clip(action, -1, 1)
            yield state, action, row == rows - 1
            state, _, _, _, info = env.step(action)
            if info["success"] and kind == "navigate":
                env.unwrapped.set_goal(goal_ij=corners[rng.integers(len(corners))])
    env.close()


def _carry(kind: str, seed: int, share: float) -> Iterator[Row]:
    """A cube, carried to one random place after the other."""
    import ogbench  # noqa: F401 (registers its environments)
    from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
    from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle

    episodes, rows = CARRYING
    env: Any = gym.make(
        "cube-single-v0", terminate_at_goal=False, mode="data_collection", max_episode_steps=rows
    )
    np.random.seed(seed)  # OGBench's oracles draw from NumPy's global generator
    env.action_space.seed(seed)
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    oracle = CubePlanOracle(env=env) if kind == "play" else CubeMarkovOracle(env=env)
    for _ in range(round(share * episodes)):
        state, info = env.reset()
        oracle.reset(state, info)
        noise = rng.uniform() * LARGEST_NOISE
        for row in range(rows):
            if kind == "noisy" and rng.random() < RANDOM_SHARE:
                action = env.action_space.sample()
            else:
                action = np.asarray(oracle.select_action(state, info))
                if kind == "noisy":
                    action = action + rng.normal(0, noise)
            action = np.clip(action, -1, 1)
            yield state, action, row == rows - 1
            state, _, _, _, info = env.step(action)
            if oracle.done:
                oracle.reset(*env.unwrapped.set_new_target(p_stack=0.0))
    env.close()


def _cells(maze: Any) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Free cells, and those of them that are no corridor: goals of "navigate"."""
    cells, corners = [], []
    for i, j in np.argwhere(np.asarray(maze) == 0).tolist():
        cells.append((i, j))
        up, down, left, right = (
            maze[i + d][j + e] == 0 for d, e in ((-1, 0), (1, 0), (0, -1), (0, 1))
        )
        vertical, horizontal = up and down, left and right
        if not (vertical and not left and not right) and not (horizontal and not up and not down):
            corners.append((i, j))
    return cells, corners


def _cells_at(
    maze: Any, start: tuple[int, int], cells: list[tuple[int, int]], steps: int
) -> list[tuple[int, int]]:
    """Cells that are so many steps away, or as far as there are any."""
    _, distance = maze.get_oracle_subgoal(maze.ij_to_xy(start), maze.ij_to_xy(start))
    steps = min(steps, max(int(distance[cell]) for cell in cells))
    return [cell for cell in cells if distance[cell] == steps]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, default=Path("data"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0)
    given = parser.parse_args()
    make_data(given.name, given.out / f"{given.name}.npz", given.seed, given.share)
