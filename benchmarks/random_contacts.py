"""In how many episodes random actions move the object, by how long each action is kept.

    python benchmarks/random_contacts.py

Rows: benchmarks/results/random_contacts.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from rllib_odac import make_env

# The object's place in the achieved goal.
OBJECTS = {
    "odac/FetchPush-v0": slice(0, 3),
    "odac/SawyerPush-v0": slice(2, 4),
    "odac/SawyerWindow-v0": slice(3, 6),
    "odac/SawyerFaucet-v0": slice(3, 6),
}
STEPS_KEPT = (1, 2, 5, 10, 20, 40)
MOVED = 0.01  # m


def measure(env_id: str, steps_kept: int, episodes: int) -> dict[str, object]:
    """Share of episodes in which the object ends elsewhere, and how far, in metres."""
    env, rng = make_env(env_id), np.random.default_rng(0)
    place, moved = OBJECTS[env_id], []
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        start, is_running, step = observation["achieved_goal"][place], True, 0
        while is_running:
            if step % steps_kept == 0:
                action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
            observation, _, terminated, truncated, _ = env.step(action)
            is_running, step = not (terminated or truncated), step + 1
        moved.append(np.linalg.norm(observation["achieved_goal"][place] - start))
    env.close()
    far = np.array(moved)
    return {
        "env": env_id,
        "steps_kept": steps_kept,
        "episodes": episodes,
        "moved_share": (far > MOVED).mean(),
        "median_distance": np.median(far[far > MOVED]) if (far > MOVED).any() else 0.0,
    }


def main() -> None:
    """Measures every task and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=300)
    out = Path(__file__).parent / "results" / "random_contacts.csv"
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--env", nargs="+", choices=list(OBJECTS), default=list(OBJECTS))
    options = parser.parse_args()
    rows = [measure(env, kept, options.episodes) for env in options.env for kept in STEPS_KEPT]
    table = pd.DataFrame(rows)
    table.to_csv(options.out, index=False, float_format="%.4g")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
