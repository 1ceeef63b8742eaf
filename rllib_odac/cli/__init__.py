"""The `odac` command."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from rllib_odac import __version__
from rllib_odac.cli.data import data, record
from rllib_odac.cli.environments import envs, render
from rllib_odac.cli.inspect import inspect
from rllib_odac.cli.policies import export, pull, push
from rllib_odac.cli.runs import evaluate, train
from rllib_odac.cli.settings import settings
from rllib_odac.cli.studies import compare, study
from rllib_odac.cli.sweep import sweep
from rllib_odac.cli.watch import watch
from rllib_odac.metrics import as_help as help_on_metrics
from rllib_odac.settings import as_help as help_on_settings

COMMANDS = (
    *(evaluate, watch, inspect, export, push, pull),
    *(study, sweep, compare, record, data, settings, envs, render),
)

app = typer.Typer(
    no_args_is_help=True,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Outcome-Driven Actor-Critic: train agents that reach goals without a hand-made reward."""
    if show_version:
        print(f"rllib_odac {__version__}")
        raise typer.Exit


app.command(epilog=f"{help_on_settings()}\n\n{help_on_metrics()}")(train)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Entry point of the `odac` command."""
    # One thread a process: small networks gain nothing from two, and two busy processes with two
    # threads each on two cores are many times slower. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    app()
