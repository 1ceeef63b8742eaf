"""In how many of the episodes that a run has collected the object was moved.

    python benchmarks/contacts.py RUN [RUN ...]

From the replay of each run's last checkpoint, a hundred episodes a row, in the order in which they
were collected. Moved is what lies more than a centimetre from where it lay, lost what has fallen
from the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from rllib_odac.checkpoints.find import checkpoint_here
from rllib_odac.data.read import read_episodes

MOVED, TABLE = 0.01, 0.35  # m: a displacement, and a height below the table's
AT_ONCE = 100


def rows(run: Path) -> list[dict[str, object]]:
    """Shares of one run's episodes."""
    goals = [episode.achieved_goal for episode in read_episodes(checkpoint_here(run))]
    ways = np.array([np.linalg.norm(goal[-1] - goal[0]) for goal in goals])
    heights = np.array([goal[-1, 2] for goal in goals])
    return [
        {
            "run": run.name,
            "first_episode": first,
            "moved_share": round(float((ways[first : first + AT_ONCE] > MOVED).mean()), 3),
            "lost_share": round(float((heights[first : first + AT_ONCE] < TABLE).mean()), 3),
        }
        for first in range(0, len(goals), AT_ONCE)
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/contacts.csv")
    given = parser.parse_args()
    table = pd.DataFrame([row for run in given.runs for row in rows(run)])
    table.to_csv(given.out, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
