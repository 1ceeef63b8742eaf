"""A run's figures as TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from rllib_odac.metrics import FIGURES, LEARNING


def write_scalars(writer: SummaryWriter, row: Mapping[str, Any]) -> None:
    """Writes a row of progress as `evaluation/...` and `learning/...`.

    It lies at its environment step, or at its update where a log is all there is.
    """
    step = row["env_steps"] or row["updates"]
    for group, names in (("evaluation", FIGURES), ("learning", LEARNING)):
        for name in names:
            if row.get(name) is not None:
                writer.add_scalar(f"{group}/{name}", row[name], step)
    writer.flush()


def open_writer(directory: Path, env_steps: int) -> SummaryWriter:
    """A writer that goes on after `env_steps`; what lies beyond, of a run cut short, is void."""
    return SummaryWriter(
        str(directory),
        purge_step=env_steps + 1 if env_steps else None,
        filename_suffix=f".{env_steps}",  # else a file is named by the second alone
    )
