"""Every setting of `ODACConfig`, declared once: default, allowed values, meaning and unit.

`ODACConfig.training()`, validation, `odac train --help` and `--set`, `odac settings`, the search
spaces of sweeps and `docs/settings.md` (which is `python -m rllib_odac.settings`) read them here.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

from rllib_odac.declarations import Setting, declarations, listed
from rllib_odac.declarations import shown as shown  # noqa: PLC0414 (others import it from here)
from rllib_odac.setting_groups import NAMED_OBJECTIVE as NAMED_OBJECTIVE  # noqa: PLC0414 (as above)
from rllib_odac.setting_groups import (
    ExplorationSettings,
    ObjectiveSettings,
    ReplaySettings,
    RLlibSettings,
    RuleSettings,
    UpdateSettings,
)


class Settings(
    ObjectiveSettings,
    RuleSettings,
    UpdateSettings,
    ReplaySettings,
    ExplorationSettings,
    RLlibSettings,
):
    """Every setting, as typed attributes."""


GROUPS: tuple[type[Any], ...] = Settings.__bases__
SETTINGS: dict[str, Setting] = {
    name: declared for group in GROUPS for name, declared in declarations(group).items()
}


def find_setting(name: str) -> Setting:
    """The declaration of a setting.

    Raises:
        ValueError: If there is none of that name; the sentence says which are spelt alike.
    """
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise ValueError(f"There is no setting '{name}'{hint}")
    return SETTINGS[name]


def check(name: str, value: Any) -> None:
    """Checks the value of a setting by itself.

    Raises:
        ValueError: With one sentence that names the setting, its value and what is allowed.
    """
    SETTINGS[name].check(name, value)


_Method = TypeVar("_Method", bound=Callable[..., Any])


def takes_settings(method: _Method) -> _Method:
    """Gives `training(self, **settings)` a signature and docstring that name every setting."""
    types = get_type_hints(Settings)
    signature = inspect.signature(method, eval_str=True)
    own, others = signature.parameters.values()
    named = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=types[name]
        )
        for name, one in SETTINGS.items()
    ]
    vars(method)["__signature__"] = signature.replace(parameters=[own, *named, others])
    arguments = [*listed(SETTINGS), f"    **{others.name}: More of RLlib's own `training()`."]
    method.__doc__ = "\n".join([inspect.cleandoc(method.__doc__ or ""), "", "Args:", *arguments])
    return method


def as_help() -> str:
    """A paragraph for each setting, for a command's help."""
    title = "Settings for --set, of which `odac settings` says more:"
    lines = [f"{name}: {declared.explained()}" for name, declared in SETTINGS.items()]
    return "\n\n".join([title, *lines]).replace("[", r"\[")  # no markup


def as_markdown() -> str:
    """The page `docs/settings.md`."""
    lines = [
        "# Settings",
        "",
        "What `ODACConfig.training(name=value)`, `odac train --set name=value`, run files and the",
        "spaces of sweeps may set. `odac settings` prints them too.",
    ]
    for group in GROUPS:
        title, _, notes = (inspect.getdoc(group) or "").partition(".")
        lines += ["", f"## {title}", "", *notes.strip().splitlines(), ""]
        lines += ["| name | default | allowed | meaning | unit |", "|---|---|---|---|---|"]
        for name, declared in declarations(group).items():
            default = f"`{shown(declared.default)}`"
            cells = [f"`{name}`", default, declared.rule.words, declared.meaning, declared.unit]
            lines.append(f"| {' | '.join(cells)} |")
    mutable = ", ".join(f"`{name}`" for name, declared in SETTINGS.items() if declared.mutable)
    lines += ["", f"Population-based training may change in the middle of a run: {mutable}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
