"""The `odac` command as tests run it: in this process, or in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rllib_odac.cli import app
from tests.conftest import start_ray

SMALL = ["--set", "hidden=(32,32)", "--set", "train_batch_size_per_learner=32"]
BOX = ["odac/Box2D-v0", *SMALL, "--set", "updates_per_env_step=0.1", "--evaluate-every", "500"]


@dataclass
class Finished:
    """What a command that has ended leaves, as `subprocess.CompletedProcess` names it."""

    returncode: int
    stdout: str
    stderr: str


def odac(*arguments, cwd=None, check=True, ray=True):
    """Runs `odac` in this process, with the Ray that the tests share, and no terminal."""
    if ray:
        start_ray()
    before = Path.cwd()
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    code = 0
    try:
        os.chdir(cwd or before)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            app(list(map(str, arguments)))
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os.chdir(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    finished = Finished(code, out.getvalue(), err.getvalue())
    if check:
        assert finished.returncode == 0, finished.stderr
    return finished


def odac_process(*arguments, cwd=None, check=True):
    """Runs `odac` in a process of its own, which starts a Ray of its own, and waits for it."""
    process = subprocess.run(
        [sys.executable, "-m", "rllib_odac.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=150,
        check=False,
    )
    if check:
        assert process.returncode == 0, process.stderr
    return process


def start_odac(*arguments, **options):
    """Starts `odac` in a process group of its own, without waiting for it."""
    command = [sys.executable, "-m", "rllib_odac.cli", *map(str, arguments)]
    return subprocess.Popen(command, start_new_session=True, **options)


def wait_for(condition, seconds=100):
    """Waits until the condition holds, and fails if it does not by then."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
