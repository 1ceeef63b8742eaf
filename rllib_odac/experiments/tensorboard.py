"""A run's figures as TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from rllib_odac.metrics import FIGURES, LEARNING


def scalars(row: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    """The step of a row of progress, and its figures as `evaluation/...` and `learning/...`.

    It lies at its environment step, or at its update where a log is all there is.
    """
    groups = (("evaluation", FIGURES), ("learning", LEARNING))
    named = {f"{group}/{name}": row.get(name) for group, names in groups for name in names}
    found = {name: value for name, value in named.items() if value is not None}
    return int(row["env_steps"] or row["updates"]), found


def write_scalars(writer: SummaryWriter, row: Mapping[str, Any]) -> None:
    """Writes a row of progress at its step."""
    step, found = scalars(row)
    for name, value in found.items():
        writer.add_scalar(name, value, step)
    writer.flush()


def open_writer(directory: Path, env_steps: int) -> SummaryWriter:
    """A writer that goes on after `env_steps`; what lies beyond, of a run cut short, is void."""
    return SummaryWriter(
        str(directory),
        purge_step=env_steps + 1 if env_steps else None,
        filename_suffix=f".{env_steps}",  # else a file is named by the second alone
    )
