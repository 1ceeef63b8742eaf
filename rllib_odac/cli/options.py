"""Options of a command that come from the fields that a dataclass declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Any, get_type_hints

import typer

from rllib_odac.declarations import declarations

Command = Callable[..., None]


def field_options(
    cls: type[Any], names: Iterable[str], arguments: Collection[str] = ()
) -> list[inspect.Parameter]:
    """A parameter of a command for each field, None where it is not given.

    Args:
        cls: The dataclass that declares them.
        names: The fields.
        arguments: Those that are arguments instead of options.
    """
    types, declared, parameters = get_type_hints(cls), declarations(cls), []
    for name in names:
        text = declared[name].explained().replace(", or None", "").replace("[", r"\[")  # no markup
        kind = typer.Argument if name in arguments else typer.Option
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    types[name] | None, kind(help=f"{text[0].upper()}{text[1:]}.")
                ],
            )
        )
    return parameters


def takes(parameters: Iterable[inspect.Parameter]) -> Callable[[Command], Command]:
    """Gives a command these parameters, which it receives as its **fields, before its own."""

    def decorate(command: Command) -> Command:
        *own, _fields = inspect.signature(command, eval_str=True).parameters.values()
        signature = inspect.Signature([*parameters, *own])
        vars(command)["__signature__"] = signature
        command.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
        return command

    return decorate
