"""In which of Meta-World's tasks the object can get to its goal, as `odac/MetaWorld-v0` has it.

    python benchmarks/metaworld_tasks.py

Meta-World's own scripted policies act for 200 steps in two episodes of each task; a row says how
far the object is from its goal at first and at its nearest, and in how many episodes it got within
5 cm of it, and in how many it began there. Tasks with two objects are refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP

from rllib_odac.envs.metaworld import MetaWorldEnv

EPISODES, STEPS = 2, 200


def try_task(task: str) -> dict[str, Any]:
    """The row of a task."""
    env = MetaWorldEnv(task)
    robot: Any = env.simulator
    robot._partially_observable = False  # scripted policies are told the goal
    first, nearest = [], []
    for seed in range(EPISODES):
        policy = ENV_POLICY_MAP[task]()
        _, info = env.reset(seed=seed)
        distances = [info["final_distance"]]
        for _ in range(STEPS):
            action = np.clip(policy.get_action(robot._get_obs()), -1, 1)
            distances.append(env.step(action.astype(np.float32))[4]["final_distance"])
        first.append(distances[0])
        nearest.append(min(distances))
    env.close()
    return {
        "task": task,
        "first_distance": round(float(np.mean(first)), 4),
        "nearest_distance": round(float(np.mean(nearest)), 4),
        "begins_there": int((np.array(first) <= env.goals.success_distance).sum()),
        "gets_there": int((np.array(nearest) <= env.goals.success_distance).sum()),
        "episodes": EPISODES,
    }


def main() -> None:
    """Tries every task and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results = Path(__file__).with_name("results")
    parser.add_argument("--output", type=Path, default=results / "metaworld_tasks.csv")
    output = parser.parse_args().output
    rows = []
    for task in sorted(ALL_V3_ENVIRONMENTS):
        try:
            rows.append(try_task(task))
        except ValueError as error:
            rows.append({"task": task, "refused": str(error)})
        print(rows[-1], flush=True)
        pd.DataFrame(rows).to_csv(output, index=False)


if __name__ == "__main__":
    main()
