"""Load a policy and act: no Ray, no trainer, only the environment or the robot itself.

    python examples/own_environment.py      # leaves a checkpoint
    python examples/load_and_act.py

The same line loads a run directory or a file that `odac export` wrote.
"""

from __future__ import annotations

import argparse
import sys

from own_environment import make_reacher

from rllib_odac import load_policy


def main() -> None:
    """Acts for a few episodes and says how they ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policy", nargs="?", default="runs/own_environment")
    parser.add_argument("--episodes", type=int, default=5)
    options = parser.parse_args()
    policy = load_policy(options.policy)
    print(f"{policy.spec.objective} on {policy.spec.env}, {policy.spec.env_steps} steps")
    env = make_reacher()
    for episode in range(options.episodes):
        observation, info = env.reset(seed=episode)
        ended = False
        while not ended:
            observation, _, terminated, truncated, info = env.step(policy(observation))
            ended = terminated or truncated
        reached = "reached" if info["is_success"] else "not reached"
        print(f"episode {episode}: {reached}, {100 * info['final_distance']:.1f} cm left")
    env.close()
    assert "ray" not in sys.modules


if __name__ == "__main__":
    main()
