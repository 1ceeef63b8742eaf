"""`odac watch` beside a run that trains: the page follows it, and loads nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.error
import urllib.request

import imageio.v2 as imageio
import pytest

from tests.system.commands import BOX, odac, start_odac, wait_for

pytestmark = [pytest.mark.system, pytest.mark.long]


def get(url):
    # Without proxies, which a machine may have for other places.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as answer:
        return answer.read().decode()


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run, what its page was when it began, and its address when it has ended."""
    out = tmp_path_factory.mktemp("runs") / "watched"
    checkpoints = ("--checkpoint-every", 500)
    training = start_odac(*map(str, ("train", *BOX, "--steps", 2000, *checkpoints, "--out", out)))
    wait_for(lambda: (out / "config.json").is_file() or training.poll() is not None)
    options = ("--port", "0", "--every", "0.2", "--episodes", "2")
    watching = start_odac("watch", str(out), *options, stdout=subprocess.PIPE, text=True)
    try:
        url = watching.stdout.readline().partition(" ")[0]
        first = get(url)
        assert training.wait(timeout=100) == 0
        wait_for(lambda: "Ended after 2,000 env steps" in get(url))
        wait_for(lambda: "What checkpoint_final does" in get(url))  # which takes longer to draw
        yield out, url, first
    finally:
        for process in (training, watching):
            process.kill()
            process.wait()


def test_the_page_follows_a_run(watched):
    out, url, first = watched
    page = get(url)
    assert "Ended after 2,000 env steps" not in first
    assert int(get(url + "version")) > 1
    assert page.count("<svg") == 6  # a curve each
    assert page.count("data:image/png;base64,") > 4  # how it acts, and what it infers
    assert not re.search(r'(?:src|href)="(?!data:|#|film)', page)  # nothing from elsewhere
    assert "@import" not in page
    (out / "reached.mp4").write_bytes(b"a film")
    wait_for(lambda: "film?6" in get(url))
    assert get(url + "film?6") == "a film"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(url + "config.json")


@pytest.mark.parametrize("width", [400, 1300])
def test_a_browser_shows_it(watched, tmp_path, width):
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("needs a Chromium to open the page in")
    _, url, _ = watched
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},1600"]
    options += ["--no-proxy-server", f"--user-data-dir={tmp_path / 'profile'}"]
    picture = tmp_path / f"{width}.png"
    subprocess.run(
        [chromium, *options, "--virtual-time-budget=4000", f"--screenshot={picture}", url],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    shown = imageio.imread(picture)[:, :, :3]
    assert (shown.std(axis=(0, 1)) > 5).all()
    blue = (abs(shown.astype(int) - [0, 0x72, 0xB2]) < 30).all(-1)  # the curves' colour
    assert blue.sum() > 100


def test_what_is_no_run_is_said_in_one_sentence(tmp_path):
    process = odac("watch", tmp_path, check=False, ray=False)
    assert process.returncode == 2
    assert process.stderr == (
        f"error: run is '{tmp_path}', which holds no run: there is no config.json.\n"
    )
