"""How a setting is declared: its default, the rule of its values, its meaning and its unit."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

_Class = TypeVar("_Class")


def is_number(value: Any) -> bool:
    """Whether it is a finite int or float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_int(value: Any) -> bool:
    """Whether it is an int, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value as a message shows it: in one line, and not too long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


@dataclass(frozen=True)
class Rule:
    """Which values a setting may have.

    Attributes:
        test: Whether a value is allowed; a TypeError or ValueError counts as no.
        words: The allowed values, as they follow "must be".
    """

    test: Callable[[Any], bool]
    words: str

    def allows(self, value: Any) -> bool:
        """Whether a value is allowed."""
        try:
            return bool(self.test(value))
        except (ValueError, TypeError):  # it cannot be compared, as an array of numbers
            return False

    def check(self, name: str, value: Any) -> None:
        """Checks a value.

        Raises:
            ValueError: With one sentence that names the setting, its value and what is allowed.
        """
        if not self.allows(value):
            raise ValueError(f"{name} is {shown(value)}, but must be {self.words}.")

    def or_none(self) -> Rule:
        """The same, with None allowed too."""
        return Rule(lambda v: v is None or self.test(v), f"{self.words}, or None")

    def or_auto(self) -> Rule:
        """The same, with "auto" allowed too."""
        return Rule(lambda v: v == "auto" or self.test(v), f'{self.words}, or "auto"')


FRACTION = Rule(lambda v: is_number(v) and 0 < v < 1, "a number strictly between 0 and 1")
PROBABILITY = Rule(lambda v: is_number(v) and 0 <= v <= 1, "a number in [0, 1]")
SHARE_BELOW_1 = Rule(lambda v: is_number(v) and 0 <= v < 1, "a number in [0, 1)")
POSITIVE_SHARE = Rule(lambda v: is_number(v) and 0 < v <= 1, "a number in (0, 1]")
NUMBER = Rule(is_number, "a number")
POSITIVE = Rule(lambda v: is_number(v) and v > 0, "a positive number")
NON_NEGATIVE = Rule(lambda v: is_number(v) and v >= 0, "a number of at least 0")
COUNT = Rule(lambda v: is_int(v) and v >= 1, "a whole number of at least 1")
COUNT_FROM_0 = Rule(lambda v: is_int(v) and v >= 0, "a whole number of at least 0")
SEED = Rule(lambda v: is_int(v) and 0 <= v < 2**32, "a whole number in [0, 2^32)")
SWITCH = Rule(lambda v: isinstance(v, bool), "True or False")
TEXT = Rule(lambda v: isinstance(v, str), "a text")
MAPPING = Rule(
    lambda v: isinstance(v, Mapping) and all(isinstance(name, str) for name in v),
    "a mapping of names, such as {'key': value}",
)


def one_of(*names: str) -> Rule:
    """The rule of a setting that is one of some names."""
    *first, last = [f'"{name}"' for name in names]
    return Rule(lambda v: v in names, f"{', '.join(first)} or {last}")


@dataclass(frozen=True)
class Setting:
    """The declaration of a setting.

    Attributes:
        default: Its value unless another is given; MISSING where one must be.
        rule: The allowed values.
        meaning: What it does, in a line.
        unit: What numbers are measured in; empty for switches, names and plain numbers.
        network: Whether the RLModule needs it, in its `model_config`.
        mutable: Whether it may change in the middle of a run, as population-based training does.
    """

    default: Any
    rule: Rule
    meaning: str
    unit: str = ""
    network: bool = False
    mutable: bool = False

    def explained(self) -> str:
        """Meaning, unit, allowed values and default as a line of help."""
        unit = "" if self.unit in self.meaning else f", in {self.unit}"
        default = "" if self.default in (None, MISSING) else f"; default {shown(self.default)}"
        return f"{self.meaning}{unit} ({self.rule.words}{default})"

    def check(self, name: str, value: Any) -> None:
        """Checks a value by its rule; raises a ValueError as `Rule.check` does."""
        self.rule.check(name, value)


def setting(default: Any, rule: Rule, meaning: str, unit: str = "", **flags: bool) -> Any:
    """A dataclass field with a `Setting` of these arguments."""
    metadata = {"setting": Setting(default, rule, meaning, unit, **flags)}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def declarations(cls: type[Any]) -> dict[str, Setting]:
    """The settings that a dataclass declares, by name."""
    return {f.name: f.metadata["setting"] for f in fields(cls)}


def listed(declared: Mapping[str, Setting]) -> list[str]:
    """Lines of a docstring, one for each setting."""
    return [f"    {name}: {one.explained()}." for name, one in declared.items()]


def lists_its_settings(cls: type[_Class]) -> type[_Class]:
    """Adds the settings that a dataclass declares to its docstring."""
    lines = [inspect.cleandoc(cls.__doc__ or ""), "", "Attributes:", *listed(declarations(cls))]
    cls.__doc__ = "\n".join(lines)
    return cls
