"""Steps and seconds until tasks with finitely many actions are solved.

    python benchmarks/discrete.py

Four rooms and sixteen bits with their tuned settings, Stable-Baselines3's own `BitFlippingEnv` of
sixteen bits, with discrete and with continuous actions, as it is, and MiniGrid's empty room of
eight by eight cells, from the agent's place and direction. Every 1,000 steps 100 held-out goals are
sought, until all are reached; seconds are those of training alone, on one thread.
"""

from __future__ import annotations

import argparse
import functools
import platform
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import torch

from rllib_odac import ODACConfig, goal_env
from rllib_odac.runtime.cluster import join_or_start
from rllib_odac.tuned import tuned_fields

BITS = 16
OF_BITS = tuned_fields("odac/BitFlip-v0")["settings"]


def bit_flipping(continuous: bool) -> gym.Env[Any, Any]:
    """Stable-Baselines3's environment."""
    from stable_baselines3.common.envs import BitFlippingEnv

    return BitFlippingEnv(n_bits=BITS, continuous=continuous)


def empty_room(**kwargs: Any) -> gym.Env[Any, Any]:
    """MiniGrid's room, with starts and goals anywhere in it instead of in two corners."""
    return goal_env(
        "minigrid:MiniGrid-Empty-8x8-v0",
        agent_start_pos=None,
        observation=lambda _, env: [*env.agent_pos, *np.eye(4)[env.agent_dir]],
        achieved_goal=lambda _, env: env.agent_pos,
        desired_goal=a_cell,
        success_distance=0.5,
        units="cells",
        max_episode_steps=30,
        **kwargs,
    )


def a_cell(_: Any, env: Any) -> Any:
    """A free cell, the green one where episodes would end among them."""
    env.grid.set(env.width - 2, env.height - 2, None)
    return env.np_random.integers(1, [env.width - 1, env.height - 1])


TASKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "GridWorld": ("odac/GridWorld-v0", tuned_fields("odac/GridWorld-v0")["settings"]),
    "BitFlip": ("odac/BitFlip-v0", OF_BITS),
    "Stable-Baselines3's, discrete": (functools.partial(bit_flipping, False), OF_BITS),
    "Stable-Baselines3's, continuous": (
        functools.partial(bit_flipping, True),
        OF_BITS | {"kl_weight": 0.05},
    ),
    "MiniGrid's empty room": (empty_room, {"hidden": [128, 128], "dynamics_min_scale": 0.1}),
}


def solve(task: str, seed: int, steps: int) -> list[dict[str, Any]]:
    """A row for each evaluation, the last of which is that all goals were reached, if they were."""
    env, settings = TASKS[task]
    config = ODACConfig().training(**settings).debugging(seed=seed, log_level="ERROR")
    config.environment(env)
    algorithm = config.evaluation(evaluation_interval=None).build_algo()
    rows: list[dict[str, Any]] = []
    seconds = 0.0
    while algorithm.env_steps < steps and not (rows and rows[-1]["success_rate"] == 1):
        start = time.perf_counter()
        algorithm.train()
        seconds += time.perf_counter() - start
        rows.append(
            {
                "task": task,
                "seed": seed,
                "env_steps": algorithm.env_steps,
                "updates": algorithm.updates,
                "train_s": round(seconds, 1),
                "success_rate": algorithm.evaluate_held_out(100)["success_rate"],
            }
        )
        print(rows[-1], flush=True)
    algorithm.stop()
    return rows


def main() -> None:
    """Trains each task with each seed and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=10_000)
    results = Path(__file__).with_name("results")
    parser.add_argument("--output", type=Path, default=results / "discrete.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    join_or_start("local", num_cpus=2, log_to_driver=False)
    old = pd.read_csv(options.output) if options.output.exists() else pd.DataFrame()
    for task in options.tasks:
        for seed in options.seeds:
            new = pd.DataFrame(solve(task, seed, options.steps)).assign(machine=platform.machine())
            if len(old):
                old = old[(old["task"] != task) | (old["seed"] != seed)]
            old = pd.concat([old, new], ignore_index=True)
            old.to_csv(options.output, index=False)


if __name__ == "__main__":
    main()
