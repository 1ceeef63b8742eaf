"""The sweep as it is used on a cluster: submitted as a job to a head that asks for a token."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from rllib_odac.experiments.spec import RunSpec, read_spec
from rllib_odac.metrics import FIGURES
from tests.conftest import starts_trials

pytest.importorskip("aiohttp", reason='job submission needs pip install "rllib-odac[cluster]"')
pytestmark = [pytest.mark.system, pytest.mark.long, starts_trials]

ROOT = Path(__file__).parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@dataclass
class Head:
    """A Ray head on this machine's loopback interface."""

    address: str
    environment: dict[str, str]

    def submit(self, *arguments, **environment):
        """Runs `ray job submit` to the end of the job."""
        return subprocess.run(
            [*RAY, "job", "submit", "--address", self.address, *map(str, arguments)],
            env=self.environment | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    import psutil

    directory = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # paths of sockets must be short
    token = directory / "token"
    token.write_text(os.urandom(32).hex())
    ours = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment = ours | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "OMP_NUM_THREADS": "1",
    }
    dashboard = free_port()
    options = {
        "node-ip-address": "127.0.0.1",
        "port": free_port(),
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard,
        "ray-client-server-port": free_port(),
        "dashboard-agent-listen-port": free_port(),
        "temp-dir": directory / "session",
        "num-cpus": 2,
        "object-store-memory": 200_000_000,
    }
    log = directory / "head.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*RAY, "start", "--head", "--block", *(f"--{k}={v}" for k, v in options.items())],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        deadline = time.monotonic() + 90
        while subprocess.run(
            [*RAY, "job", "list", "--address", address],
            env=environment, capture_output=True, check=False,
        ).returncode:  # fmt: skip
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
        yield Head(address, environment)
    finally:
        started = [process, *psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(started[1:], timeout=15)
        for left in alive:
            left.kill()
        process.wait(timeout=15)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def job(head, tmp_path_factory):
    storage = tmp_path_factory.mktemp("storage")
    finished = head.submit(
        "--working-dir", ".",
        "--", "python", "tune_configs/sweep.py", "--smoke", "--storage", storage, "--name", "smoke",
    )  # fmt: skip
    return storage / "smoke", finished


def test_the_job_succeeds_and_tells_of_each_trial(job):
    _, finished = job
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "succeeded" in finished.stdout
    assert "2/2 trial_" in finished.stdout


def test_every_trial_has_a_row_and_figures(job):
    folder, _ = job
    rows = pd.read_csv(folder / "results" / "results.csv")
    assert rows["status"].tolist() == ["finished", "finished"]
    assert rows["env_steps"].tolist() == [600, 600]
    assert (rows["updates"] > 0).all()
    assert rows[list(FIGURES)].notna().all(axis=None)
    assert rows["lr"].nunique() == 2  # the base's own and a drawn one
    parquet = pd.read_parquet(folder / "results" / "results.parquet")
    assert parquet["trial"].tolist() == rows["trial"].tolist()
    assert parquet["final_distance"].tolist() == pytest.approx(rows["final_distance"].tolist())
    for checkpoint in rows["checkpoint"]:
        assert json.loads((Path(checkpoint) / "odac.json").read_text())["env_steps"] == 600
    for trial in rows["trial"]:
        assert list((folder / f"trial_{trial}").glob("events.out.tfevents.*"))  # TensorBoard's


def test_the_best_configuration_is_one_that_odac_train_takes(job):
    folder, _ = job
    spec = RunSpec(**read_spec(folder / "results" / "best.json"))
    spec.config()
    rows = pd.read_csv(folder / "results" / "results.csv")
    best = rows.loc[rows["final_distance"].idxmin()]
    assert spec.env == "FetchReach-v4"
    assert spec.settings["lr"] == best["lr"]


def test_the_report_is_one_file_that_a_browser_shows(job, tmp_path):
    folder, _ = job
    text = (folder / "results" / "report.html").read_text()
    assert "src=" not in text
    assert "href=" not in text.replace('xlink:href="#', "")
    assert text.count("<svg") == 3
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium to open the report in")
    picture = tmp_path / "report.png"
    subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu"),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1100,2400",
            f"--screenshot={picture}",
            (folder / "results" / "report.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    import imageio.v3 as iio

    pixels = iio.imread(picture)
    colours = {tuple(pixel) for pixel in pixels[::3, ::3, :3].reshape(-1, 3)}
    assert (0xC2, 0x41, 0x0C) in colours  # the best trial's line


@pytest.mark.slow
def test_a_head_started_in_the_checkout_needs_no_working_directory(head, tmp_path):
    finished = head.submit(
        *("--", "python", "tune_configs/sweep.py", "--smoke", "--env", "odac/Box2D-v0"),
        *("--steps", 200, "--trials", 1, "--scheduler", "none", "--storage", tmp_path),
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    [rows] = tmp_path.glob("*/results/results.csv")
    assert pd.read_csv(rows)["env_steps"].tolist() == [200]


def test_without_the_token_nothing_is_submitted(head):
    finished = head.submit("--", "python", "--version", RAY_AUTH_MODE="disabled")
    assert finished.returncode != 0
    assert "token authentication is enabled" in (finished.stdout + finished.stderr).lower()
