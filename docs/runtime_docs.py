"""Shows griffe, which reads source code, what declarations of settings make of it at run time."""

from __future__ import annotations

import inspect
from typing import Any

import griffe

WITH_SETTINGS = ("rllib_odac.config.ODACConfig.training", "rllib_odac.experiments.spec.RunSpec")


class RuntimeDocs(griffe.Extension):
    """Takes signatures and docstrings of `WITH_SETTINGS` from the imported objects."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called when the package has been read."""
        for path in WITH_SETTINGS:
            shown = pkg[path.removeprefix("rllib_odac.")]
            real = griffe.dynamic_import(path)
            shown.docstring = griffe.Docstring(
                inspect.getdoc(real) or "", parent=shown, parser="google"
            )
            if isinstance(shown, griffe.Function):
                shown.parameters = griffe.Parameters(
                    *(
                        griffe.Parameter(
                            parameter.name,
                            annotation=_text(parameter.annotation),
                            kind=griffe.ParameterKind(parameter.kind.description),
                            default=_text(parameter.default, repr),
                        )
                        for parameter in inspect.signature(real).parameters.values()
                    )
                )


def _text(value: Any, form: Any = inspect.formatannotation) -> str | None:
    return None if value is inspect.Parameter.empty else form(value)
