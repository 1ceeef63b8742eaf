"""`odac settings`."""

from __future__ import annotations

import inspect
from typing import Annotated

import typer

from rllib_odac.cli.common import Debug, errors_in_one_sentence
from rllib_odac.declarations import declarations
from rllib_odac.settings import GROUPS, find_setting


def settings(
    names: Annotated[
        list[str] | None, typer.Argument(help=r"Settings to explain \[all of them].")
    ] = None,
    debug: Debug = False,
) -> None:
    """Explain the settings that `odac train --set` and `ODACConfig.training()` take."""
    with errors_in_one_sentence(debug):
        for name in names or []:
            print(f"{name}: {find_setting(name).explained()}.")
        for group in [] if names else GROUPS:
            print(inspect.getdoc(group), end="\n\n")
            for name, declared in declarations(group).items():
                print(f"  {name}: {declared.explained()}.")
            print()
