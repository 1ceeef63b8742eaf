"""Every fault of a data set in every format, as it is loaded and as it streams: one sentence."""

from __future__ import annotations

import itertools

import gymnasium as gym
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from rllib_odac.data.load import load_log
from rllib_odac.data.window import Log
from rllib_odac.envs.actions import actions_of
from tests.conftest import small_config

T, D, G, A = 6, 4, 2, 2
FIELDS = {"observation": (T + 1, D), "achieved_goal": (T + 1, G), "desired_goal": (T + 1, G)}
FIELDS["actions"] = (T, A)


def episodes():
    """Four episodes that are as they should be."""
    rng = np.random.default_rng(0)
    return [
        {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in FIELDS.items()}
        for _ in range(4)
    ]


def write_npz(folder, given):
    for number, columns in enumerate(given):
        np.savez_compressed(folder / f"{number}.npz", **columns)


def write_parquet(folder, given):
    for number, (one, other) in enumerate((given[:2], given[2:])):
        rows = {name: [] for name in one} | {"episode": []}
        for index, columns in enumerate((one, other)):
            for name, values in columns.items():
                rows[name] += (
                    [*values, np.zeros_like(values[0])] if name == "actions" else [*values]
                )
            rows["episode"] += [index] * len(columns["observation"])
        pyarrow.parquet.write_table(pyarrow.table(rows), folder / f"{number}.parquet")


def write_ogbench(folder, given):
    for number, pair in enumerate((given[:2], given[2:])):
        ends = [len(columns["observation"]) for columns in pair]
        terminals = np.zeros(sum(ends))
        terminals[np.cumsum(ends) - 1] = 1
        np.savez_compressed(
            folder / f"{number}.npz",
            observations=np.concatenate([columns["observation"] for columns in pair]),
            actions=np.concatenate([np.pad(c["actions"], ((0, 1), (0, 0))) for c in pair]),
            terminals=terminals,
        )


def write_minari(folder, given):
    h5py = pytest.importorskip("h5py", reason='needs pip install "rllib-odac[data]"')
    (folder / "data").mkdir()
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for number, columns in enumerate(given):
            group = file.create_group(f"episode_{number}")
            for name, values in columns.items():
                group["actions" if name == "actions" else f"observations/{name}"] = values


WRITERS = {"npz": write_npz, "parquet": write_parquet, "ogbench": write_ogbench}
WRITERS["minari"] = write_minari
WHERE = {  # the third of four episodes
    "npz": r"2\.npz', episode 0",
    "parquet": r"1\.parquet', episode 0",
    "ogbench": r"1\.npz', episode 0",
    "minari": r"main_data\.hdf5', episode 2",
}


def with_value(field, row, value):
    def change(columns):
        columns[field][row, -1] = value

    return change


def with_rows(**rows):
    def change(columns):
        for name, count in rows.items():
            columns[name] = columns[name][:count]

    return change


def with_width(field, width):
    def change(columns):
        columns[field] = np.resize(columns[field], (len(columns[field]), width))

    return change


def without(field):
    def change(columns):
        del columns[field]

    return change


EVERYWHERE = list(WRITERS)
WITH_GOALS = ["npz", "parquet", "minari"]
FAULTS = [
    (
        with_value("observation", 2, np.nan),
        "observation holds NaN or infinity in row 2",
        EVERYWHERE,
    ),
    (with_value("actions", 1, np.inf), "actions holds NaN or infinity in row 1", EVERYWHERE),
    (with_value("achieved_goal", 0, np.nan), "achieved_goal holds NaN or inf", WITH_GOALS),
    (with_value("desired_goal", T, -np.inf), "desired_goal holds NaN or infinity", WITH_GOALS),
    (
        with_value("actions", 3, 1.5),
        r"actions has 1\.5 at step 3, coordinate 1, but must be in \[-1, 1\]",
        EVERYWHERE,
    ),
    (
        with_rows(**dict.fromkeys(FIELDS, 1) | {"actions": 0}),
        "observation has 1 rows, but must have at least 2",
        ["npz", "ogbench", "minari"],
    ),
    (with_rows(actions=T - 2), "actions has 4 rows, but must have 6", ["npz", "minari"]),
    (with_rows(desired_goal=3), "desired_goal has 3 rows, but must have 7", ["npz", "minari"]),
    (with_width("observation", 5), "observation has 5 numbers a row, but must have 4", WITH_GOALS),
    (with_width("actions", 3), "actions has 3 numbers a row, but must have 2", WITH_GOALS),
    (with_width("desired_goal", 1), "desired_goal has 1 numbers a row, but must", WITH_GOALS),
    (without("observation"), "has no observation, but must; it has", ["npz", "minari"]),
    (without("actions"), "has no actions, but must; it has", ["npz", "minari"]),
]
ROWS = [(*fault[:2], each) for fault in FAULTS for each in fault[2]]


def log_at(folder, capacity=100):
    return Log(str(folder), None, actions_of(gym.spaces.Box(-1, 1, (A,))), capacity, 1)


def check(log, sentence):
    with pytest.raises(ValueError, match=sentence) as loaded:
        list(log.once(0))
    with pytest.raises(ValueError, match=sentence) as streamed:
        list(itertools.islice(log.endless(0, seed=[0]), 100))
    assert str(loaded.value).count("\n") == str(streamed.value).count("\n") == 0


@pytest.mark.parametrize("kind", WRITERS)
def test_a_good_one_is_loaded_and_streams(tmp_path, kind):
    WRITERS[kind](tmp_path, episodes())
    assert len(list(log_at(tmp_path).once(0))) == 4
    assert len(list(itertools.islice(log_at(tmp_path).endless(0, [0]), 9))) == 9


@pytest.mark.parametrize(("change", "sentence", "kind"), ROWS)
def test_a_fault_is_said_with_file_episode_and_field(tmp_path, change, sentence, kind):
    given = episodes()
    change(given[2])
    WRITERS[kind](tmp_path, given)
    check(log_at(tmp_path), f"{WHERE[kind]}:? {sentence}")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_is_cut_off_is_named(tmp_path, kind):
    WRITERS[kind](tmp_path, episodes())
    file = max(each for each in tmp_path.rglob("*") if each.is_file())
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    check(log_at(tmp_path), f"{file.name}' is damaged: ")


@pytest.mark.parametrize("kind", ["npz", "ogbench"])
def test_a_bit_that_has_flipped_is_noticed(tmp_path, kind):
    WRITERS[kind](tmp_path, episodes())
    file = tmp_path / "0.npz"
    content = bytearray(file.read_bytes())
    content[100] ^= 0xFF
    file.write_bytes(content)
    check(log_at(tmp_path), r"0\.npz' is damaged: ")


def test_rows_of_different_widths_are_named(tmp_path):
    rows = {"episode": [0, 0, 0, 1, 1, 1], "observation": [[1.0, 2.0]] * 6, "actions": [[0.0]] * 6}
    rows["observation"][4] = [1.0, 2.0, 3.0]
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "a.parquet")
    sentence = r"a\.parquet', episode 1: observation must be numbers, each row as long"
    check(log_at(tmp_path), sentence)


def test_an_empty_one_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", observations=np.zeros((0, D)), actions=np.zeros((0, A)),
             terminals=np.zeros(0))  # fmt: skip
    with pytest.raises(ValueError, match="holds no episode"):
        list(log_at(tmp_path).once(0))
    with pytest.raises(ValueError, match="holds no episode"):
        next(log_at(tmp_path).endless(0, [0]))


@pytest.mark.parametrize("capacity", [100, 20])  # where it fits, and where it streams
def test_nothing_is_half_loaded(tmp_path, capacity):
    write_npz(tmp_path, episodes())
    config = small_config(None, offline=True, data=str(tmp_path), replay_capacity=capacity)
    config.validate()
    learner_group = config.build_learner_group()
    given = episodes()
    given[3]["actions"][0] = 2
    write_npz(tmp_path, given)
    learner = learner_group._learner
    before = learner.networks.observation_normalizer.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    log = log_at(tmp_path, capacity)
    with pytest.raises(ValueError, match=r"3\.npz', episode 0: actions has 2 at step 0"):
        load_log(learner_group, log, seed=(0, 0))
    assert len(learner.replay) == 0
    after = learner.networks.observation_normalizer.state_dict()
    assert all(bool((after[name] == value).all()) for name, value in before.items())
    write_npz(tmp_path, episodes())
    assert load_log(learner_group, log, seed=(0, 0)) == (4 * T if capacity == 100 else 2 * T)
