"""Go on where a checkpoint left off: networks, optimizers, random streams and the whole replay.

    python examples/resume.py

From the command line: `odac train ENV --out DIR --resume`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rllib_odac import ODACConfig


def main() -> None:
    """Trains, stops, and goes on in another algorithm as if nothing had happened."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="before and after the checkpoint")
    parser.add_argument("--out", type=Path, default="runs/resume")
    options = parser.parse_args()
    config = (
        ODACConfig()
        .environment("FetchReach-v4")
        .reporting(min_sample_timesteps_per_iteration=options.steps)
        .debugging(seed=0, log_level="ERROR")
    )
    first = config.copy().build_algo()
    first.train()
    checkpoint = first.save_to_path(options.out.absolute())
    print(f"{checkpoint}: {first.env_steps} steps, {first.updates} updates")
    without_a_break = first.train()["evaluation"]["env_runners"]
    first.stop()

    second = config.copy().build_algo()
    second.restore_from_path(checkpoint)
    assert second.env_steps < first.env_steps
    resumed = second.train()["evaluation"]["env_runners"]
    print(f"{second.env_steps} steps, {second.updates} updates")
    # In one process, to the last bit.
    assert resumed["final_distance"] == without_a_break["final_distance"]
    print(f"{resumed['success_rate']:.0%} reached, with the break and without")
    second.stop()


if __name__ == "__main__":
    main()
