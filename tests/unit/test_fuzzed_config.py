"""Hundreds of wrong values over all settings: each gets one sentence, and nothing has started."""

from __future__ import annotations

import math

import numpy as np
import psutil
import pytest
import ray

from rllib_odac import ODACConfig
from rllib_odac.declarations import declarations
from rllib_odac.experiments.spec import RunSpec
from rllib_odac.settings import SETTINGS

WRONG = [
    *(None, True, False, -1, 0, 2, 10**30, -0.5, 0.5, 1.5, 1e-320, 1e308),
    *(math.nan, math.inf, -math.inf, 1j, np.nan, np.float32("inf"), np.int64(-3)),
    *("", "x", "nan", "auto ", "AUTO", "0.5", "None", "\n", b"auto", "prior\n"),
    *([], (), {}, set(), [0], [256, -1], [math.nan], ["a"], [[0, 1e-3]], {"future": math.nan}),
    *({"future": "x"}, {"x": 1.0}, {1: 1}, {"own": -1, "future": 2}, object(), print, int),
    *(np.array([0.5, 0.5]), np.array([]), range(3), "ä" * 100),
]
RUN_FIELDS = [n for n in declarations(RunSpec) if n not in ("env", "objective", "settings")]


@pytest.fixture
def nothing_starts(monkeypatch):
    """Fails a test that starts Ray or a process."""

    def refuse(*_, **__):
        raise AssertionError("Ray was started.")

    monkeypatch.setattr(ray, "init", refuse)
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before


def check_sentence(error, name):
    sentence = str(error)
    assert sentence.startswith(name), sentence
    assert sentence.endswith("."), sentence
    assert "\n" not in sentence
    assert len(sentence) < 400


def test_every_setting_says_what_is_wrong_with_it(nothing_starts):
    refused = dict.fromkeys(SETTINGS, 0)
    for name in refused:
        for value in WRONG:
            config = ODACConfig()
            setattr(config, name, value)
            try:
                config.check_settings()
            except ValueError as error:
                check_sentence(error, name)
                refused[name] += 1
    # Whatever a setting allows, most of these it does not.
    assert min(refused.values()) >= 25, refused
    assert sum(refused.values()) > 1500


def test_every_field_of_a_run_says_what_is_wrong_with_it(nothing_starts):
    refused = dict.fromkeys(RUN_FIELDS, 0)
    for name in refused:
        for value in WRONG:
            try:
                RunSpec("odac/Box2D-v0", **{name: value}).config()
            except ValueError as error:
                check_sentence(error, name)
                refused[name] += 1
    assert min(refused.values()) >= 30, refused


@pytest.mark.parametrize("value", ["[1", "nan", "'x'", "-1e999", "None"])
def test_the_command_line_does_so_too(nothing_starts, value, capsys):
    from typer.testing import CliRunner

    from rllib_odac.cli import app

    result = CliRunner().invoke(app, ["train", "odac/Box2D-v0", "--set", f"tau={value}"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: tau is ")
    assert result.stderr.count("\n") == 1
