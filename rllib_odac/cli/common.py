"""What the commands share: quiet libraries, errors in one sentence, `--set`."""

from __future__ import annotations

import ast
import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rllib_odac.runtime.cluster import Processes

Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Ray's own messages.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Unpickle its settings: where they are objects of yours.")
]


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """What `--set` options say, by name; a value is a Python literal or a plain word."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--set has '{pair}', but must have the form key=value.")
        text = {"true": "True", "false": "False", "none": "None", "null": "None"}.get(
            text.lower(), text
        )
        try:
            settings[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            settings[name] = text  # a plain word, such as auto
    return settings


def file_name(env: str) -> str:
    """An environment's id as a name of files."""
    return env.replace("/", "-").replace(":", "-")


def start_ray(
    wanted: Sequence[Processes],
    debug: bool,
    address: str | None = None,
    busy: int = 1,
) -> None:
    """Joins the Ray cluster at `address` or in RAY_ADDRESS, else starts Ray with room for `wanted`.

    Where this process has Ray already and no other is asked for, that one is used.

    Args:
        wanted: What will run through Ray.
        debug: Show Ray's own messages.
        address: The cluster's.
        busy: Processes that will compute at the same time.

    Raises:
        ValueError: If no cluster answers, or it can never hold what is wanted.
    """
    import ray

    from rllib_odac.runtime.cluster import (
        address_to_join,
        check_room,
        has_room_now,
        join_or_start,
        num_cpus,
    )

    level = logging.INFO if debug else logging.ERROR
    joins = address_to_join(address) is not None
    if not joins and busy > (os.cpu_count() or 1):
        print(
            f"warning: {busy} processes share {os.cpu_count()} CPUs; more of them will not make "
            "this faster.",
            file=sys.stderr,
        )
    if joins or not ray.is_initialized():
        join_or_start(address, num_cpus(wanted), log_to_driver=debug, logging_level=level)
    check_room(wanted)
    if joins and not has_room_now(wanted):
        print("note: the cluster is busy; waiting for others to end.", file=sys.stderr)


@contextlib.contextmanager
def quiet_libraries(debug: bool) -> Iterator[None]:
    """Keeps Ray's messages and everyone's warnings from the terminal."""
    if debug:
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a future change
    import ray  # which sets its logger's level when it is imported

    logging.getLogger(ray.__name__).setLevel(logging.ERROR)
    ours = logging.getLogger("rllib_odac")
    if not any(isinstance(handler, _OneLine) for handler in ours.handlers):
        ours.addHandler(_OneLine())
        ours.propagate = False
    with quiet_warnings(debug):
        yield


class _OneLine(logging.Handler):
    """Says what our own loggers warn of, as every other message of a command."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"warning: {record.getMessage()}", file=sys.stderr)


@contextlib.contextmanager
def quiet_warnings(debug: bool) -> Iterator[None]:
    """Keeps warnings from the terminal."""
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def errors_in_one_sentence(debug: bool) -> Iterator[None]:
    """Ends the command with status 2 and one sentence where something goes wrong."""
    try:
        yield
    except (KeyboardInterrupt, typer.Exit):
        raise
    except Exception as error:
        if debug:
            raise
        print(f"error: {one_sentence(error)}", file=sys.stderr)
        raise typer.Exit(2) from None


def one_sentence(error: BaseException) -> str:
    """What went wrong, without the errors that Ray and RLlib wrap it in."""
    cause = error
    # Ray wraps what went wrong in an error with a `cause`, RLlib in one without a text.
    while inner := getattr(cause, "cause", None) or (cause.__cause__ if not str(cause) else None):
        cause = inner
    text = " ".join(str(cause).split()) or type(cause).__name__
    known = isinstance(cause, ValueError | OSError | FloatingPointError | RuntimeError)
    return text if known else f"{text} (--debug shows where)"
