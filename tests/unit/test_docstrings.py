"""Every public name says what it is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import rllib_odac

MODULES = ["rllib_odac"] + [
    module.name
    for module in pkgutil.walk_packages(rllib_odac.__path__, "rllib_odac.")
    if not any(part.startswith("_") for part in module.name.split("."))
]


def public(names):
    return {name: thing for name, thing in names.items() if not name.startswith("_")}


def documented(thing):
    """Whether it has a docstring, one that it inherits from what it overrides included."""
    return bool((inspect.getdoc(thing) or "").strip())


def undocumented_members(cls):
    """Public methods and properties without one, and the class itself."""
    own = vars(cls).get("__doc__") or ""
    missing = [] if own.strip() and not own.startswith(f"{cls.__name__}(") else [cls.__name__]
    for name, member in public(vars(cls)).items():
        is_method = callable(member) or isinstance(member, property | classmethod | staticmethod)
        if is_method and not documented(getattr(cls, name)):
            missing.append(f"{cls.__name__}.{name}")
    return missing


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_of_a_module_is_documented(name):
    module = importlib.import_module(name)
    missing = [] if documented(module) else [name]
    for thing_name, thing in public(vars(module)).items():
        if getattr(thing, "__module__", None) != name:
            continue
        if inspect.isclass(thing):
            missing += undocumented_members(thing)
        elif inspect.isroutine(thing) and not documented(thing):
            missing.append(thing_name)
    assert missing == []


def test_every_name_that_the_package_offers_is_documented():
    assert [name for name in rllib_odac.__all__ if not documented(getattr(rllib_odac, name))] == []
