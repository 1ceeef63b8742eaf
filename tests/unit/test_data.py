"""Logs in every format, what is said of bad ones, and how they get into a replay."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from rllib_odac import make_env
from rllib_odac.cli import app
from rllib_odac.data.describe import describe
from rllib_odac.data.load import logged_spaces
from rllib_odac.data.logged import logged_episode, to_replay
from rllib_odac.data.read import read_episodes
from rllib_odac.data.record import record
from rllib_odac.envs.actions import actions_of
from rllib_odac.replay.buffer import GoalReplay
from tests.conftest import small_config

T, D, A = 5, 4, 2


def columns(rng, steps=T):
    return {
        "observation": rng.normal(size=(steps + 1, D)),
        "actions": rng.uniform(-1, 1, size=(steps, A)),
        "achieved_goal": rng.normal(size=(steps + 1, 2)),
        "desired_goal": np.repeat(rng.normal(size=(1, 2)), steps + 1, axis=0),
    }


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def check_alike(episode, given):
    for name, values in given.items():
        assert np.allclose(getattr(episode, name), values.astype(np.float32)), name


def test_what_is_recorded_is_read(tmp_path):
    env = make_env("odac/Box2D-v0")
    seen = []
    summary = record(env, 120, tmp_path / "log", seed=3, max_episode_steps=25, on_step=seen.append)
    assert summary == json.loads((tmp_path / "log" / "dataset.json").read_text())
    assert (summary["env"], summary["episodes"], summary["steps"]) == ("odac/Box2D-v0", 5, 125)
    assert seen == list(range(1, 126))
    episodes = list(read_episodes(tmp_path / "log"))
    assert [len(episode) for episode in episodes] == [25] * 5
    # The same seed gives the same log, and its actions lead from state to state.
    record(env, 120, tmp_path / "again", seed=3, max_episode_steps=25)
    for one, other in zip(episodes, read_episodes(tmp_path / "again"), strict=True):
        assert np.array_equal(one.observation, other.observation)
        moved = np.diff(one.observation, axis=0)
        inside = (np.abs(one.observation[1:]) < 3.9).all(-1)
        assert np.corrcoef(moved[inside].ravel(), one.actions[inside].ravel())[0, 1] > 0.5
    with pytest.raises(ValueError, match="which is there already; give a new folder"):
        record(env, 10, tmp_path / "log")
    with pytest.raises(ValueError, match="steps is 0, but must be at least 1"):
        record(env, 0, tmp_path / "none")


def test_a_policy_is_recorded(tmp_path):
    env = make_env("odac/Box2D-v0")

    def to_goal(state):
        return np.clip(state["desired_goal"] - state["achieved_goal"], -1, 1)

    record(env, 500, tmp_path / "log", policy=to_goal)
    [direct] = {describe(tmp_path / "log", success_distance=0.6)["reached_share"]}
    record(env, 500, tmp_path / "noisy", policy=to_goal, random_share=1.0)
    assert direct > describe(tmp_path / "noisy", success_distance=0.6)["reached_share"]


def test_an_episode_a_file(tmp_path, rng):
    given = [columns(rng, steps) for steps in (3, 1, 7)]
    for number, each in enumerate(given):
        np.savez(tmp_path / f"episode_{number}.npz", **each, terminated=number == 1)
    episodes = list(read_episodes(tmp_path))
    assert [len(episode) for episode in episodes] == [3, 1, 7]
    assert [episode.terminated for episode in episodes] == [False, True, False]
    for episode, each in zip(episodes, given, strict=True):
        check_alike(episode, each)


def test_ogbench(tmp_path, rng):
    observations, actions = rng.normal(size=(9, D)), rng.uniform(-1, 1, size=(9, A))
    terminals = np.array([0, 0, 0, 1, 0, 0, 0, 0, 1])
    file = tmp_path / "pointmaze.npz"
    np.savez(file, observations=observations, actions=actions, terminals=terminals)
    first, second = read_episodes(file, goal=[0, 1])
    check_alike(first, {"observation": observations[:4], "actions": actions[:3]})
    check_alike(second, {"observation": observations[4:], "actions": actions[4:8]})
    check_alike(second, {"achieved_goal": observations[4:, :2]})
    assert np.allclose(second.desired_goal, observations[8, :2].astype(np.float32))
    [whole, _] = read_episodes(file)
    assert whole.achieved_goal.shape == (4, D)  # without a choice all is the goal


def test_minari(tmp_path, rng):
    h5py = pytest.importorskip("h5py", reason='needs pip install "rllib-odac[data]"')
    given = [columns(rng, steps) for steps in range(1, 13)]
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data" / "main_data.hdf5", "w") as file:
        for number, each in enumerate(given):
            group = file.create_group(f"episode_{number}")
            group["actions"] = each["actions"]
            group["terminations"] = np.arange(number + 1) == (number if number == 4 else -1)
            for name, values in each.items():
                if name != "actions":
                    group[f"observations/{name}"] = values
    episodes = list(read_episodes(tmp_path))
    assert [len(episode) for episode in episodes] == list(range(1, 13))  # 10 comes after 9
    assert [number for number, episode in enumerate(episodes) if episode.terminated] == [4]
    for episode, each in zip(episodes, given, strict=True):
        check_alike(episode, each)
    (tmp_path / "data" / "main_data.hdf5").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"main_data\.hdf5' is damaged: "):
        list(read_episodes(tmp_path))


def test_a_replay_is_data_too(tmp_path, rng):
    episodes = [logged_episode(columns(rng, steps), "made up") for steps in (3, 6)]
    bounds = actions_of(gym.spaces.Box(np.array([-2.0, -1.0]), np.array([2.0, 3.0])))
    replay = GoalReplay(100, D, 2, A, relabel={"future": 1.0})
    for episode in episodes:
        episode.is_unit = True
        replay.add(to_replay(episode, bounds))
    folder = tmp_path / "checkpoint"
    (folder / "replay").mkdir(parents=True)
    (folder / "odac.json").write_text("{}")
    with open(folder / "replay" / "shard_00000.npz", "wb") as file:
        replay.write(file)
    for one, other in zip(episodes, read_episodes(folder), strict=True):
        assert np.array_equal(one.observation, other.observation)
        assert np.allclose(to_replay(other, bounds).actions, one.actions, atol=1e-6)


def test_actions_are_scaled_to_the_unit_box(rng):
    given = columns(rng) | {"actions": np.array([[-2.0, -1.0]] * 4 + [[2.0, 1.0]])}
    bounds = actions_of(gym.spaces.Box(np.array([-2.0, -1.0]), np.array([2.0, 3.0])))
    episode = to_replay(logged_episode(given, "x"), bounds)
    assert np.allclose(episode.actions, [[-1, -1]] * 4 + [[1, 0]])
    given["actions"][3, 1] = 3.5
    sentence = r"^x: actions has 3\.5 at step 3, coordinate 1, but must be in \[-1, 3\], the env"
    with pytest.raises(ValueError, match=sentence):
        to_replay(logged_episode(given, "x"), bounds)


def test_whole_numbers_of_a_log_become_one_hot_rows(tmp_path):
    env = make_env("odac/GridWorld-v0")
    record(env, 120, tmp_path / "log")
    actions = actions_of(env.action_space)
    for episode in read_episodes(tmp_path / "log"):
        assert episode.actions.shape == (50, 1)
        rows = to_replay(episode, actions).actions
        assert rows.shape == (50, 5)
        np.testing.assert_array_equal(rows.argmax(1), episode.actions[:, 0])
    assert logged_spaces(str(tmp_path / "log"), None)["action_space"] == env.action_space
    config = small_config("odac/GridWorld-v0", data=str(tmp_path / "log"))
    config.check_environment()
    episode.actions = np.where(np.arange(50)[:, None] == 3, 5, episode.actions)
    sentence = r"actions has \[5\.0\] at step 3, but must be one of the environment's 5 actions"
    with pytest.raises(ValueError, match=sentence):
        to_replay(episode, actions)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"observation": None}, r"has no observation, but must; it has \["),
        ({"actions": None}, "has no actions, but must"),
        ({"actions": np.zeros((T + 1, A))}, "actions has 6 rows, but must have 5, one less"),
        ({"observation": np.zeros((1, D))}, "observation has 1 rows, but must have at least 2"),
        (
            {"observation": np.full((T + 1, D), np.nan)},
            "observation holds NaN or infinity in row 0",
        ),
        ({"desired_goal": np.zeros((3, 2))}, "desired_goal has 3 rows, but must have 6 as observ"),
        ({"desired_goal": np.zeros((1, 3))}, "desired_goal has 3 numbers a row, but must have 2"),
        ({"achieved_goal": np.zeros((T, 2))}, "achieved_goal has 5 rows, but must have 6"),
        ({"actions": np.array(["left"] * T)}, "actions must be numbers, each row as long"),
        ({"actions": np.float64(1)}, "actions is one number, but must have a row for each step"),
    ],
)
def test_what_is_wrong_is_said_with_file_episode_and_field(tmp_path, rng, change, sentence):
    good, bad = columns(rng), {k: v for k, v in (columns(rng) | change).items() if v is not None}
    np.savez(tmp_path / "a.npz", **good)
    np.savez(tmp_path / "b.npz", **bad)
    with pytest.raises(ValueError, match=f"^'{tmp_path}/b.npz', episode 0:? {sentence}"):
        list(read_episodes(tmp_path))


def test_what_is_no_data_is_said(tmp_path, rng):
    def check(path, sentence, **arguments):
        with pytest.raises(ValueError, match=sentence):
            list(read_episodes(path, **arguments))

    check(tmp_path / "nothing", "^There is no file or folder '.*nothing' to read data from")
    check(tmp_path, "holds no data: it must be a folder of .parquet or .npz files, a Minari")
    (tmp_path / "log.txt").write_text("no")
    check(tmp_path / "log.txt", r"log.txt' must end in \.parquet, \.npz or \.hdf5")
    (tmp_path / "a.npz").write_bytes(b"half")
    check(tmp_path, "a.npz' is damaged: ")
    np.savez(tmp_path / "a.npz", **columns(rng))
    narrow = columns(rng) | {"observation": np.zeros((T + 1, 3))}
    np.savez(tmp_path / "b.npz", **narrow)
    check(tmp_path, "b.npz', episode 0: observation has 3 numbers a row, but must have 4 as in")
    goals = {k: v for k, v in columns(rng).items() if "goal" not in k}
    np.savez(tmp_path / "c.npz", **goals)
    check(
        tmp_path / "c.npz", r"data_goal is \[7\], but must be coordinates of observation", goal=[7]
    )
    (tmp_path / "p").mkdir()
    table = pyarrow.table({"episode": [], "observation": [], "actions": []})
    pyarrow.parquet.write_table(table, tmp_path / "p" / "empty.parquet")
    check(tmp_path / "p", "p' holds no episode")
    (tmp_path / "p" / "empty.parquet").write_bytes(b"PAR1 and nothing")
    check(tmp_path / "p", "empty.parquet' is damaged")
    np.savez(tmp_path / "o.npz", observations=np.zeros((3, D)), actions=np.zeros((3, A)),
             terminals=[0, 1, 0])  # fmt: skip
    check(tmp_path / "o.npz", "terminals ends with 1 rows of an episode without an end")


def test_a_log_of_another_environment_is_refused_before_training(tmp_path, rng):
    np.savez(tmp_path / "a.npz", **columns(rng))
    with pytest.raises(ValueError, match="observation has 4 numbers a row, but must have 2 as"):
        small_config(data=str(tmp_path)).check_environment()
    maze = {"observation": np.zeros((3, 2)), "actions": np.zeros((2, 2))}
    np.savez(tmp_path / "a.npz", **maze)
    small_config(data=str(tmp_path)).check_environment()
    with pytest.raises(ValueError, match=r"desired_goal has 1 .* data_goal must name"):
        small_config(data=str(tmp_path), data_goal=[0]).check_environment()


def test_the_commands(tmp_path):
    runner = CliRunner()
    folder = str(tmp_path / "log")
    result = runner.invoke(app, ["record", "odac/Box2D-v0", "--steps", "100", "--out", folder])
    assert result.exit_code == 0, result.output
    assert "2 episodes, 100 steps" in result.output
    options = ["--env", "odac/Box2D-v0", "--picture", str(tmp_path / "states.png")]
    result = runner.invoke(app, ["data", folder, *options])
    assert result.exit_code == 0, result.output
    assert "2 episodes of 50 to 50 steps, 100 steps in all" in result.output
    assert (tmp_path / "states.png").stat().st_size > 5000
    found = json.loads(runner.invoke(app, ["data", folder, "--json"]).output)
    assert found["widths"] == {"observation": 2, "desired_goal": 2, "actions": 2}
    result = runner.invoke(app, ["data", folder, "--env", "FetchReach-v4"])
    assert result.exit_code == 2
