"""The `odac` command as a user runs it; a process of its own where the process matters."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import imageio.v2 as imageio
import pandas as pd
import pytest

from tests.made_up import read_scalars
from tests.system.commands import BOX, odac, odac_process, start_odac, wait_for

pytestmark = pytest.mark.system


def read_run(out: Path):
    progress = pd.read_csv(out / "progress.csv")
    return progress, json.loads((out / "summary.json").read_text())


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a run"
    process = odac_process("train", *BOX, "--steps", 2000, "--seed", 3, "--out", out)
    return out, process


def test_a_run_directory_holds_what_it_promises(finished_run):
    out, process = finished_run
    progress, summary = read_run(out)
    assert progress["env_steps"].is_monotonic_increasing
    assert progress["env_steps"].tolist() == [500, 1000, 1500, 2000]
    for column in ("updates", "wall_s", "success_rate", "final_distance", "critic_loss"):
        assert progress[column].notna().iloc[-1]
        assert summary[column] == pytest.approx(progress[column].iloc[-1])
    assert summary["seed"] == 3
    assert set(summary["versions"]) >= {"rllib-odac", "ray", "torch", "python"}
    assert json.loads((out / "config.json").read_text())["env"] == "odac/Box2D-v0"
    assert (out / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "checkpoint_final" / "odac.json").is_file()
    assert "env_steps 2000" in process.stdout  # plain lines where there is no terminal
    assert "\x1b" not in process.stdout
    assert process.stderr == ""


@pytest.mark.long
def test_evaluate_prints_one_object_and_repeats_itself(finished_run, tmp_path):
    out, _ = finished_run
    _, summary = read_run(out)
    arguments = ("evaluate", out / "checkpoint_final", "--json")
    first = odac_process(*arguments, "--video", tmp_path / "film.gif")
    result = json.loads(first.stdout)
    assert result["success_rate"] == pytest.approx(summary["success_rate"])
    assert result["final_distance"] == pytest.approx(summary["final_distance"])
    assert result["num_episodes"] == 100
    assert odac(*arguments).stdout == first.stdout
    assert (tmp_path / "film.gif").read_bytes().startswith(b"GIF8")
    assert (tmp_path / "film.png").read_bytes().startswith(b"\x89PNG")
    assert odac("evaluate", out, "--json").stdout == first.stdout  # the run's newest checkpoint
    other = json.loads(odac(*arguments, "--episodes", 7, "--seed", 1).stdout)
    assert other["num_episodes"] == 7


@pytest.fixture(scope="module")
def inspected(finished_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("inspected") / "new"
    arguments = ("inspect", finished_run[0] / "checkpoint_final", "--episodes", 6, "--json")
    return out, odac(*arguments, "--out", out)


def test_inspect_draws_what_was_inferred(inspected):
    out, process = inspected
    assert process.stderr == ""
    result = json.loads(process.stdout)
    assert result["missing"] == []
    assert 0 < result["discount_mean"] <= 0.951
    assert 0 <= result["coverage_50"] <= result["coverage_90"] <= 1
    files = [Path(file) for file in result["files"]]
    names = {file.stem for file in files if not file.stem.startswith("episode_")}
    assert names == {"report", "fields", "termination", "calibration", "value"}
    assert len(files) in (6, 7)  # an episode that reached its goal, one that did not, or both
    pictures = [file for file in files if file.suffix == ".png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in pictures)
    assert (out / "report.html").read_text().count("data:image/png;base64,") == len(pictures)


def test_a_browser_shows_every_picture_of_the_page(inspected, tmp_path):
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("needs a Chromium to open the page in")
    out, _ = inspected
    page = (out / "report.html").read_text()
    # The page itself runs nothing: a copy of it says what the browser made of the pictures.
    script = (
        "<script>onload = () => document.title = "
        "[...document.images].map(i => i.naturalWidth > 500).join()</script>"
    )
    (tmp_path / "copy.html").write_text(page + script)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,1400"]
    options.append(f"--user-data-dir={tmp_path / 'profile'}")
    shown = subprocess.run(
        [chromium, *options, "--dump-dom", (tmp_path / "copy.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = shown.stdout.partition("<title>")[2].partition("</title>")[0]
    assert title.split(",") == ["true"] * page.count("<img")
    for scheme, brightness in (("light", 200), ("dark", 160)):
        picture = tmp_path / f"{scheme}.png"
        flags = ["--force-dark-mode"] if scheme == "dark" else []
        subprocess.run(
            [chromium, *options, *flags, f"--screenshot={picture}", (out / "report.html").as_uri()],
            capture_output=True, timeout=120, check=True,
        )  # fmt: skip
        margin = imageio.imread(picture)[:20, :, :3]
        assert (margin.mean() > brightness) == (scheme == "light")


def test_a_run_writes_event_files(finished_run):
    out, _ = finished_run
    scalars = read_scalars(out / "tensorboard")
    progress, _ = read_run(out)
    for column in ("discount_p10", "effective_horizon", "relabelled_share", "log_prob_goal_p90"):
        rows = progress[progress[column].notna()]
        values = dict(zip(rows["env_steps"], rows[column], strict=True))
        assert scalars[f"learning/{column}"] == pytest.approx(values, rel=1e-5)
        assert len(values) >= 3
    assert list(scalars["evaluation/success_rate"]) == progress["env_steps"].tolist()


def test_resuming_a_finished_run_does_nothing(finished_run):
    out, _ = finished_run
    before = (out / "progress.csv").read_bytes()
    process = odac("train", *BOX, "--steps", 2000, "--seed", 3, "--out", out, "--resume")
    assert "finished already" in process.stdout
    assert (out / "progress.csv").read_bytes() == before


def test_a_resumed_run_falls_back_and_a_bad_checkpoint_points_to_a_good_one(
    finished_run,
    tmp_path,
):
    out = tmp_path / "run"
    shutil.copytree(finished_run[0], out)
    shard = out / "checkpoint_final" / "replay" / "shard_00000.npz"
    shard.write_bytes(shard.read_bytes()[:-100])
    good = out / "checkpoints" / "step_000001000"
    process = odac("evaluate", out / "checkpoint_final", check=False)
    assert process.returncode == 2
    assert "'replay/shard_00000.npz' has" in process.stderr
    assert process.stderr.endswith(f"the newest whole one is '{good}'.\n")
    assert process.stderr.count("\n") == 1
    # What the damaged one had seen is collected again.
    arguments = ["train", *BOX, "--steps", 2500, "--seed", 3, "--out", out, "--resume"]
    process = odac(*arguments)
    assert process.stderr.count("\n") == 1
    assert process.stderr.startswith(f"warning: The checkpoint '{out}/checkpoint_final' is damaged")
    assert process.stderr.endswith(f"is '{good}', and the run goes on from there.\n")
    progress, _ = read_run(out)
    assert progress["env_steps"].tolist() == [500, 1000, 1500, 2000, 2500]
    expected, _ = read_run(finished_run[0])
    assert progress["critic_loss"][1:4].tolist() == expected["critic_loss"][1:].tolist()


@pytest.mark.long
def test_a_killed_run_resumes_to_the_same_end(tmp_path, finished_run):
    whole, _ = finished_run
    out = tmp_path / "killed"
    arguments = ["train", *BOX, "--steps", "2000", "--seed", "3", "--out", str(out)]
    arguments += ["--checkpoint-every", "1000"]
    process = start_odac(*arguments, stdout=subprocess.DEVNULL)
    wait_for(lambda: list((out / "checkpoints").glob("step_*[0-9]")))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "summary.json").exists()
    odac(*arguments, "--resume")
    progress, _ = read_run(out)
    expected, _ = read_run(whole)
    assert progress["env_steps"].tolist() == expected["env_steps"].tolist()
    columns = [name for name in progress if name != "wall_s"]
    pd.testing.assert_frame_equal(progress[columns], expected[columns])


@pytest.mark.slow
def test_a_longer_run_goes_on_from_its_newest_checkpoint(tmp_path):
    out = tmp_path / "run"
    odac("train", *BOX, "--steps", 500, "--out", out, "--checkpoint-every", 500)
    longer = ["train", *BOX, "--steps", "50000", "--out", str(out), "--checkpoint-every", "500"]
    longer.append("--resume")
    process = start_odac(*longer, stdout=subprocess.DEVNULL)
    wait_for((out / "checkpoints" / "step_000001000").is_dir)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    odac("train", *BOX, "--steps", 2000, "--out", out, "--resume")
    steps = pd.read_csv(out / "progress.csv")["env_steps"].tolist()
    assert steps[-1] == 2000
    assert steps == sorted(set(steps))
    assert steps[:2] == [500, 1000]


def test_a_config_file_says_what_to_run_and_the_command_line_comes_first(tmp_path):
    file = tmp_path / "task.json"
    spec = {"env": "odac/Box2D-v0", "steps": 9000, "evaluate_every": 500, "seed": 5}
    file.write_text(json.dumps(spec | {"settings": {"hidden": [32, 32], "prior_discount": 0.9}}))
    out = tmp_path / "run"
    odac("train", "--config", file, "--steps", 1000, "--set", "hidden=[16]", "--out", out)
    stored = json.loads((out / "config.json").read_text())
    assert (stored["env"], stored["steps"], stored["seed"]) == ("odac/Box2D-v0", 1000, 5)
    assert stored["settings"] == {"hidden": [16], "prior_discount": 0.9}
    # a run's own config.json makes the same run again
    odac("train", "--config", out / "config.json", "--out", tmp_path / "again")
    again, expected = read_run(tmp_path / "again")[0], read_run(out)[0]
    pd.testing.assert_frame_equal(again.drop(columns="wall_s"), expected.drop(columns="wall_s"))


def test_a_run_begins_with_tuned_settings_and_goes_on_as_it_began(tmp_path):
    def stored(out):
        return json.loads((out / "config.json").read_text())

    small = ["odac/Box2D-v0", "--set", "hidden=[16]", "--steps", 500, "--final-episodes", 2]
    out = tmp_path / "run"
    said = odac("train", *small, "--out", out).stdout
    assert said.startswith("With the settings tuned for odac/Box2D-v0; --untuned leaves them out.")
    assert stored(out)["settings"] == {"hidden": [16], "updates_per_env_step": 0.2}
    assert stored(out)["evaluate_every"] == 1000
    said = odac("train", "--out", out, "--resume", "--steps", 1000).stdout
    assert "--untuned" not in said
    assert stored(out)["settings"] == {"hidden": [16], "updates_per_env_step": 0.2}
    assert read_run(out)[1]["env_steps"] == 1000
    said = odac("train", *small, "--untuned", "--out", tmp_path / "other").stdout
    assert "--untuned" not in said
    assert stored(tmp_path / "other")["settings"] == {"hidden": [16]}


@pytest.mark.parametrize(("content", "words"), [
    ("{", "cannot be read"), ('{"epochs": 3}', "has the key 'epochs', but must use"),
    ("[1]", "must be a mapping"), ('{"steps": 500}', "train needs an environment"),
])  # fmt: skip
def test_a_config_file_that_makes_no_sense(tmp_path, content, words):
    (tmp_path / "task.json").write_text(content)
    process = odac("train", "--config", tmp_path / "task.json", check=False, ray=False)
    assert process.returncode == 2
    assert words in process.stderr
    assert process.stderr.count("\n") == 1


def test_a_terminal_shows_a_progress_bar(tmp_path):
    command = [sys.executable, "-m", "rllib_odac.cli", "train", *BOX, "--steps", "500"]
    primary, secondary = os.openpty()
    process = subprocess.Popen([*command, "--out", str(tmp_path / "run")], stdout=secondary)
    os.close(secondary)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that its other end is closed
        while part := os.read(primary, 4096):
            shown += part
    assert process.wait() == 0
    assert b"500 / 500 steps" in shown
    assert b"success" in shown
    assert b"env_steps" not in shown


def test_stop_success_ends_a_run_early(tmp_path):
    until = ["--steps", 6000, "--stop-success", 0.01, "--evaluate-every", 500]
    odac("train", *BOX, *until, "--out", tmp_path / "run")
    _, summary = read_run(tmp_path / "run")
    assert summary["env_steps"] < 6000
    assert summary["success_rate"] >= 0.01


def test_version():
    assert odac("--version", ray=False).stdout == f"rllib_odac {version('rllib-odac')}\n"


def test_envs_lists_our_own_and_the_robots():
    process = odac("envs", ray=False)
    assert process.stderr == ""
    assert "\x1b" not in process.stdout
    lines = process.stdout.splitlines()
    assert lines[0].split() == ["environment", "goal", "success", "within", "steps", "installed"]
    assert lines[1].split() == ["odac/Box2D-v0", "2:", "ball", "xy", "0.6", "units", "50", "yes"]
    assert len({line.index(word) for line, word in zip(lines, ("goal", "2:"), strict=False)}) == 1
    rows = json.loads(odac("envs", "--json", ray=False).stdout)
    assert [line.split()[0] for line in lines[1:]] == [row["id"] for row in rows]
    reach = next(row for row in rows if row["id"] == "FetchReach-v4")
    assert (reach["goal_dim"], reach["units"], reach["horizon"]) == (3, "m", 50)
    assert (reach["success_distance"], reach["installed"]) == (0.05, True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "FetchReech-v4"], "no environment 'FetchReech-v4'; did you mean FetchReach-v4"),
        (["train", "CartPole-v1"], "CartPole-v1 carries no goals"),
        (["train", "FetchReach-v4", "--objective", "reward"], "objective is 'reward', but must"),
        (
            ["train", "FetchReach-v4", "--steps", "0"],
            "steps is 0, but must be a whole number of at least 1",
        ),
        (["train", "FetchReach-v4", "--seed", "-1"], "seed is -1, but must be a whole number in"),
        (["train", "FetchReach-v4", "--stop-success", "95"], "stop_success is 95.0, but must be"),
        (["train", "FetchReach-v4", "--set", "tau=2"], "tau is 2, but must be a number in (0, 1]"),
        (["train", "FetchReach-v4", "--set", "tua=2"], "no setting 'tua'; did you mean tau"),
        (["train", "FetchReach-v4", "--set", "tau"], "'tau', but must have the form key=value"),
        (["train", "FetchReach-v4", "--num-env-runners", "-1"], "num_env_runners is -1"),
        (["train", "FetchReach-v4", "--resume"], "resume needs --out"),
        (["train", "FetchReach-v4", "--set", "lr=-1"], "lr is -1, but must be a positive number"),
        (["train", "FetchReach-v4", "--set", "seed=1"], "settings has seed 1, but must leave it"),
        (["train", "FetchReach-v4", "--set", "replay_capacity=40"], "must be more than 50"),
        (["train", "FetchReach-v4", "--out", "/proc/x"], "out is '/proc/x', which cannot be made"),
        (["train", "nosuchmodule:Env-v0"], "needs the package 'nosuchmodule'"),
        (["evaluate", "nowhere"], "nowhere' is no whole checkpoint"),
        (["inspect", "nowhere", "--out", "x"], "nowhere' is no whole checkpoint"),
        (["inspect", "x", "--out", "x", "--episodes", "0"], "episodes is 0, but must be at least"),
    ],
)
def test_bad_input_gets_one_sentence(tmp_path, arguments, sentence):
    process = odac(*arguments, cwd=tmp_path, check=False, ray=False)
    assert process.returncode == 2
    assert sentence in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1
    assert "Traceback" not in process.stderr
    assert not list(tmp_path.iterdir())


def test_bad_input_ends_a_process_with_one_sentence_before_ray_starts(tmp_path):
    process = odac_process("train", "FetchReech-v4", cwd=tmp_path, check=False)
    assert process.returncode == 2
    assert "did you mean FetchReach-v4" in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_directory_of_another_run_is_refused(finished_run, tmp_path):
    out, _ = finished_run
    process = odac("train", *BOX, "--out", out, check=False)
    assert process.returncode == 2
    assert "holds a run of odac/Box2D-v0 already" in process.stderr
    process = odac("train", "FetchReach-v4", "--out", out, "--resume", check=False)
    assert process.returncode == 2
    assert "env is 'FetchReach-v4', but the run in" in process.stderr
    (tmp_path / "notes.txt").write_text("mine")
    process = odac("train", *BOX, "--out", tmp_path, check=False)
    assert process.returncode == 2
    assert "holds other files" in process.stderr
