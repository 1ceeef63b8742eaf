"""The page of `odac watch` follows a run's directory, and loads nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from dataclasses import asdict
from http.server import ThreadingHTTPServer

import imageio.v2 as imageio
import pandas as pd
import pytest

from rllib_odac.cli.watch import _handler
from rllib_odac.evaluation.watch import WatchedRun
from rllib_odac.experiments.spec import RunSpec
from rllib_odac.files import write_json
from rllib_odac.metrics import METRICS


def write_rows(run, count):
    rows = pd.DataFrame([dict.fromkeys(METRICS, 0.1 * i) for i in range(1, count + 1)])
    rows["env_steps"] = [500 * i for i in range(1, count + 1)]
    rows.to_csv(run / "progress.csv", index=False)


@pytest.fixture
def run(tmp_path):
    write_json(tmp_path / "config.json", asdict(RunSpec("odac/Box2D-v0", steps=2000)))
    return tmp_path


@pytest.fixture
def served(run):
    """What is watched, and the address of its page."""
    watched = WatchedRun(run)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(watched))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield watched, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def get(url):
    # Without proxies, which a machine may have for other places.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as answer:
        return answer.read().decode()


def test_the_page_follows_its_run(run, served):
    watched, url = served
    assert "No row yet." in get(url)
    before = get(url + "version")
    write_rows(run, 2)
    assert watched.look()
    assert "1,000 of 2,000 env steps" in get(url)
    assert get(url + "version") != before
    assert not watched.look()  # nothing new
    write_rows(run, 4)
    write_json(run / "summary.json", {})
    (run / "reached.mp4").write_bytes(b"a film")
    assert watched.look()
    page = get(url)
    assert "Ended after 2,000 env steps" in page
    assert page.count("<svg") == 6
    assert get(url + "film?6") == "a film"
    assert not re.search(r'(?:src|href)="(?!data:|#|film)', page.replace("xlink:", ""))
    assert "@import" not in page
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(url + "config.json")


def test_a_checkpoint_that_cannot_be_read_is_told_on_the_page(run):
    (run / "checkpoint_final").mkdir()
    watched = WatchedRun(run)
    watched.look()
    assert "Not shown: " in watched.page


@pytest.mark.parametrize("width", [500, 1300])
def test_a_browser_shows_it(run, served, tmp_path, width):
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("needs a Chromium to open the page in")
    watched, url = served
    write_rows(run, 2)
    watched.look()
    picture = tmp_path / f"{width}.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server"]
    options += [f"--window-size={width},1600", f"--user-data-dir={tmp_path / 'profile'}"]
    subprocess.run(
        [chromium, *options, "--virtual-time-budget=4000", f"--screenshot={picture}", url],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    shown = imageio.imread(picture)[:, :, :3].astype(int)
    assert (abs(shown - [0, 0x72, 0xB2]) < 30).all(-1).sum() > 100  # the curves' colour


def test_what_is_no_run_is_said_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"holds no run: there is no config\.json\.$"):
        WatchedRun(tmp_path)
