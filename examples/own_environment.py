"""An environment of your own: any with bounded actions becomes a goal environment in one call.

    python examples/own_environment.py

A planar arm has to bring its fingertip to a red mark. Nobody rewards it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rllib_odac import goal_env


def make_reacher(**kwargs):
    """The arm: what it sees, where its fingertip is, and where the mark is."""
    return goal_env(
        "Reacher-v5",  # an id, or a function that makes your environment
        observation=[0, 1, 2, 3, 6, 7],  # angles and speeds; the rest tells where the mark is
        achieved_goal=lambda observation, env: env.unwrapped.get_body_com("fingertip")[:2],
        desired_goal=slice(4, 6),
        success_distance=0.02,
        **kwargs,
    )


def main() -> None:
    """Trains and leaves a checkpoint."""
    from rllib_odac import ODACConfig  # which brings Ray along

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--out", type=Path, default="runs/own_environment")
    options = parser.parse_args()
    config = (
        ODACConfig()
        .environment(make_reacher)
        .reporting(min_sample_timesteps_per_iteration=min(options.steps, 1000))
        .debugging(seed=0, log_level="ERROR")
    )
    algo = config.build_algo()
    while algo.env_steps < options.steps:
        result = algo.train()["evaluation"]["env_runners"]
        print(
            f"{algo.env_steps} steps: {result['success_rate']:.0%} reached, "
            f"{100 * result['final_distance']:.1f} cm left",
            flush=True,
        )
    print(algo.save_to_path(options.out.absolute()))
    algo.stop()


if __name__ == "__main__":
    main()
