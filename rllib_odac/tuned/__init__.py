"""Tuned settings: a JSON file for each task, by the environment's id.

`odac train ENV` begins with them, `--untuned` leaves them out; studies and sweeps name the files.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent
SWEEPS = DIRECTORY / "sweeps"  # studies that search around them, in YAML


def tuned_file(name: str) -> Path | None:
    """The file of that name, such as "fetch_push.json"; None if there is none."""
    path = DIRECTORY / name
    return path if path.parent == DIRECTORY and path.is_file() else None


def tuned_fields(env: str) -> dict[str, Any]:
    """Fields of `RunSpec` that were tuned for an environment's id; empty if none were."""
    fields: dict[str, Any] = json.loads(json.dumps(_by_env().get(env, {})))
    return fields


@functools.cache
def _by_env() -> dict[str, dict[str, Any]]:
    files = [json.loads(path.read_text()) for path in sorted(DIRECTORY.glob("*.json"))]
    return {fields["env"]: fields for fields in files}
