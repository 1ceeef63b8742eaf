"""Steps per second of our environments and of what is around them, and what no learning reaches.

    python benchmarks/environments.py                    # everything, about ten minutes
    python benchmarks/environments.py --rounds 0         # the floor alone
    python benchmarks/environments.py --episodes 0       # the speed alone

Speed, with random actions, on one core with one thread, resets included; only real steps count, not
the step with which a vector environment begins anew:

- `bare`: the environment as its package ships it (`FetchPush-v4`, `Ant-v5`, Meta-World's tasks with
  their rewards), stepped without a wrapper. Box 2D is bare itself.
- `simulator`: what lies under our environment, which may compute the same observations faster.
- `single`: one environment of ours from `make_env`.
- `vector`: eight of them from `make_vector_env`.
- `runner`: one `GoalEnvRunner` that collects episodes from eight of them, called as `ODAC` calls it
  at its defaults. It should reach 80 % of `bare`.

The contestants take turns within every round, so that a slow spell of the machine hits all of them,
and ratios are formed round by round.

The floor: where random and idle (zero) actions end after as many steps as an episode has, on the
goals that evaluation uses. The normalised distance is 100 · final / initial, of the means.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import re
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import torch

from rllib_odac import ODACConfig, make_env, make_vector_env
from rllib_odac.env_runner import GoalEnvRunner
from rllib_odac.envs.catalogue import env_facts
from rllib_odac.envs.registry import OWN_ENVS
from rllib_odac.runtime.evaluator import held_out_seeds

NUM_ENVS = 8
RATIOS = [
    ("runner", "bare"),
    ("runner", "vector"),
    ("runner", "simulator"),
    ("vector", "simulator"),
    ("single", "simulator"),
]
MACHINE = "matrix product 256x256"
Block = Callable[[], int]  # makes some steps and returns how many were real


def single_blocks(env_id: str) -> tuple[Block, Block, Block]:
    """An episode of the bare environment, of the simulator under ours, and of ours."""
    env: Any = make_env(env_id)
    simulator = getattr(env.unwrapped, "simulator", env.unwrapped)
    bare = _as_shipped(simulator)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(env.spec.max_episode_steps)]
    env.reset(seed=0)

    def run(reset: Callable[[], Any], step: Callable[[Any], Any]) -> int:
        reset()
        for action in actions:
            step(action)
        return len(actions)

    return (
        lambda: run(bare.reset, bare.step),
        lambda: run(env.reset, simulator.step),
        lambda: run(env.reset, env.step),
    )


def _as_shipped(simulator: Any) -> Any:
    """A simulator of the class that its package ships, in the same state of preparation."""
    kinds = type(simulator).__mro__
    shipped = next(kind for kind in kinds if not kind.__module__.startswith("rllib_odac"))
    if shipped in (type(simulator), gymnasium.Env):  # Box 2D is ours from the ground up
        return simulator
    bare = shipped()
    for name in ("_set_task_called", "_freeze_rand_vec", "seeded_rand_vec"):  # Meta-World's
        if hasattr(bare, name):
            setattr(bare, name, getattr(simulator, name))
    bare.reset()
    return bare


def vector_block(env_id: str) -> Block:
    """An episode in each environment, from the step that begins it to the one that ends it."""
    env = make_vector_env(env_id, NUM_ENVS)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(1 + _horizon(env_id))]
    env.reset(seed=0)
    for action in actions[1:]:  # to an episode's end, where every block begins
        *_, truncated, _ = env.step(action)
    assert truncated.all()

    def run() -> int:
        for action in actions:
            env.step(action)
        return NUM_ENVS * (len(actions) - 1)

    return run


def runner_block(env_id: str) -> Block:
    """As many steps as an episode in each environment has, collected bit by bit as ODAC does."""
    config = ODACConfig().environment(env_id).env_runners(num_envs_per_env_runner=NUM_ENVS)
    config.evaluation(evaluation_interval=None).debugging(seed=0)
    runner = GoalEnvRunner(config=config, worker_index=0)

    def run() -> int:
        before = runner.env_steps
        while runner.env_steps < before + NUM_ENVS * _horizon(env_id):
            runner.sample(random_actions=True)
        return runner.env_steps - before

    return run


def machine_block() -> Block:
    """Some matrix products, to compare machines and rounds by."""
    left, right = torch.randn(2, 256, 256)

    def run() -> int:
        for _ in range(100):
            left @ right
        return 100

    return run


def measure_speed(env_id: str, rounds: int, seconds: float) -> pd.DataFrame:
    """Steps (or products) per second of each contestant, by round."""
    bare, simulator, single = single_blocks(env_id)
    contestants = {
        "bare": bare,
        "simulator": simulator,
        "single": single,
        "vector": vector_block(env_id),
        "runner": runner_block(env_id),
        MACHINE: machine_block(),
    }
    speed = pd.DataFrame(index=range(-1, rounds), columns=list(contestants), dtype=float)
    for index in speed.index:
        for name, block in contestants.items():
            steps, start = 0, time.perf_counter()
            while (passed := time.perf_counter() - start) < seconds:
                steps += block()
            speed.loc[index, name] = steps / passed
    return speed.drop(index=-1)  # it warmed up


def measure_floor(env_id: str, policy: str, episodes: int) -> dict[str, Any]:
    """Where actions without aim end, on held-out goals; distances in the task's units."""
    env: Any = make_env(env_id)
    idle = np.zeros(env.action_space.shape, dtype=env.action_space.dtype)
    initial, final, success = (np.empty(episodes) for _ in range(3))
    for i, seed in enumerate(held_out_seeds(episodes)):
        _, info = env.reset(seed=seed)
        initial[i] = info["final_distance"]
        env.action_space.seed(seed)
        truncated = False
        while not truncated:
            action = env.action_space.sample() if policy == "random" else idle
            _, _, _, truncated, info = env.step(action)
        final[i], success[i] = info["final_distance"], info["is_success"]
    env.close()
    return {
        "env": env_id,
        "policy": policy,
        "steps": _horizon(env_id),
        "episodes": episodes,
        "success_percent": 100 * success.mean(),
        "initial_distance": initial.mean(),
        "final_distance": final.mean(),
        "final_distance_ci95": 1.96 * final.std(ddof=1) / np.sqrt(episodes),
        "normalized_distance": 100 * final.mean() / initial.mean(),
        "units": env_facts(env_id).units,
    }


def _horizon(env_id: str) -> int:
    return int(OWN_ENVS[env_id]["max_episode_steps"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the environments, and their floor.")
    parser.add_argument("--env", choices=list(OWN_ENVS), nargs="*", default=list(OWN_ENVS))
    parser.add_argument("--rounds", type=int, default=7, help="of the speed")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a contestant in a round")
    parser.add_argument("--episodes", type=int, default=100, help="of each policy of the floor")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    load = os.getloadavg()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    options.output.mkdir(parents=True, exist_ok=True)
    cpu = re.findall("model name.*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    machine = {"cpu": cpu, "threads": 1}
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        "machine": machine | {"load_before": load},
        "versions": {
            name: version(name)
            for name in ("gymnasium", "gymnasium-robotics", "metaworld", "mujoco", "numpy", "ray")
        },
    }

    if options.rounds > 0:
        rows, medians, ratios = [], {}, {}
        for env_id in options.env:
            speed = measure_speed(env_id, options.rounds, options.seconds)
            gflops = 2 * 256**3 * speed.pop(MACHINE) / 1e9
            ratio = pd.DataFrame({f"{a} / {b}": speed[a] / speed[b] for a, b in RATIOS})
            medians[env_id] = speed.median().round(1).to_dict() | {"gflops": float(gflops.median())}
            ratios[env_id] = ratio.median().round(3).to_dict()
            print(f"{env_id}: {medians[env_id]}\n    {ratios[env_id]}", flush=True)
            speed = speed.rename_axis("round").reset_index()
            rows.append(speed.melt("round", var_name="what", value_name="steps_per_s"))
            rows[-1] = rows[-1].assign(env=env_id, gflops=rows[-1]["round"].map(gflops), **machine)
        table = pd.concat(rows).round(2)
        table.to_csv(options.output / "environments.csv", index=False)
        report |= {"median_steps_per_s": medians, "median_ratio": ratios}
        text = json.dumps(report, indent=2)
        (options.output / "environments.json").write_text(text + "\n")

    if options.episodes > 0:
        cases = [(env_id, policy) for env_id in options.env for policy in ("random", "idle")]
        floor = pd.DataFrame([measure_floor(*case, options.episodes) for case in cases]).round(5)
        print(floor.to_string(index=False))
        floor.assign(command=report["command"]).to_csv(options.output / "floor.csv", index=False)


if __name__ == "__main__":
    main()
