"""`Goals`: the same answer for arrays and tensors, and the environments' own."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rllib_odac import goal_env, make_env
from rllib_odac.envs.goals import Goals, goals_of, own_reward, reported_distance

POSE = Goals(0.1, measured=slice(0, 3), rotation=slice(3, 7), success_angle=0.5)
numbers = st.floats(-2, 2, width=32)


def poses(rng, count):
    """Pairs of poses, near each other as often as not."""
    goal = np.concatenate([rng.uniform(-1, 1, (count, 3)), rng.normal(size=(count, 4))], axis=1)
    noise = rng.normal(size=goal.shape) * rng.choice([0.01, 0.1, 1.0], size=(count, 1))
    achieved = goal + noise * np.array([0.05, 0.05, 0.05, 1, 1, 1, 1])
    for pose in (goal, achieved):
        pose[:, 3:] /= np.linalg.norm(pose[:, 3:], axis=1, keepdims=True)
    return achieved, goal


@given(arrays(np.float32, (5, 6), elements=numbers), arrays(np.float32, (5, 6), elements=numbers))
def test_arrays_and_tensors_get_the_same_answer(achieved, goal):
    goals = Goals(0.5, measured=slice(3, 6))
    ours, theirs = goals.distance(achieved, goal), torch.from_numpy(achieved)
    distance = goals.distance(theirs, torch.from_numpy(goal))
    np.testing.assert_allclose(distance, ours, rtol=1e-5, atol=1e-6)
    assert (ours >= 0).all()
    clear = np.abs(ours - 0.5) > 1e-5
    reached = goals.reached(theirs, torch.from_numpy(goal)).numpy()
    np.testing.assert_array_equal(reached[clear], goals.reached(achieved, goal)[clear])
    other = achieved.copy()
    other[:, :3] += 7  # coordinates that are not measured
    np.testing.assert_array_equal(goals.distance(other, goal), ours)
    np.testing.assert_array_equal(goals.distance(goal, achieved), ours)


@given(st.integers(0, 2**32 - 1))
def test_a_quaternion_and_its_negative_are_one_rotation(seed):
    achieved, goal = poses(np.random.default_rng(seed), 20)
    flipped = goal.copy()
    flipped[:, 3:] *= -1
    reached = POSE.reached(achieved, goal)
    np.testing.assert_array_equal(reached, POSE.reached(achieved, flipped))
    np.testing.assert_array_equal(reached, POSE.reached(goal, achieved))
    tensors = POSE.reached(torch.from_numpy(achieved), torch.from_numpy(flipped))
    assert tensors.dtype == torch.bool
    np.testing.assert_array_equal(reached, tensors.numpy())
    assert POSE.reached(goal, flipped).all()


@pytest.mark.parametrize(
    "name", ["Block", "BlockRotateXYZ", "BlockRotateZ", "Egg", "Pen", "PenRotate"]
)
def test_a_hand_that_turns_an_object_is_judged_as_its_environment_does(name):
    env = make_env(f"HandManipulate{name}-v1")
    goals = goals_of(env)
    achieved, goal = poses(np.random.default_rng(0), 300)
    flipped = goal * np.array([1, 1, 1, -1, -1, -1, -1])
    # One by one, as of a batch the pen's environment indexes the wrong axis. It takes q and −q for
    # different rotations: a goal is reached if it is as one of them.
    judge = env.unwrapped._is_success
    triples = zip(achieved, goal, flipped, strict=True)
    expected = [bool(judge(a, g) or judge(a, f)) for a, g, f in triples]
    np.testing.assert_array_equal(goals.reached(achieved, goal), expected)
    assert 0 < np.mean(expected) < 1
    paid = [env.unwrapped.compute_reward(a, g, {}) for a, g in zip(achieved, goal, strict=True)]
    np.testing.assert_array_equal(own_reward(env, achieved, goal), paid)
    env.close()


def test_a_pose_with_a_distance_of_ones_own_is_judged_over_all_of_it():
    env = goal_env("HandManipulateBlock-v1", success_distance=0.1)
    achieved, goal = poses(np.random.default_rng(0), 300)
    expected = np.linalg.norm(achieved - goal, axis=1) < 0.1
    np.testing.assert_array_equal(goals_of(env).reached(achieved, goal), expected)
    env.close()


def test_a_maze_counts_its_very_success_distance():
    assert goals_of(make_env("PointMaze_UMaze-v3")).includes_boundary


def test_a_distance_that_no_info_reports_is_that_of_the_measured_coordinates():
    goals = Goals(0.5, measured=slice(0, 2))
    state = {"achieved_goal": np.array([3.0, 4.0, 9.0]), "desired_goal": np.zeros(3)}
    assert reported_distance({}, state, goals) == 5
    assert reported_distance({"final_distance": 2.0}, state, goals) == 2


@pytest.mark.parametrize(
    ("env_id", "distance", "measured"),
    [
        ("odac/Box2D-v0", 0.6, slice(None)),
        ("odac/Ant-v0", 0.5, slice(0, 2)),
        ("odac/SawyerWindow-v0", 0.05, slice(-3, None)),
        ("FetchPush-v4", 0.05, slice(None)),
        ("HandReach-v3", 0.01, slice(None)),
        ("PointMaze_UMaze-v3", 0.45, slice(None)),
    ],
)
def test_environments_of_every_family_have_goals(env_id, distance, measured):
    env = make_env(env_id)
    goals = goals_of(env)
    assert (goals.success_distance, goals.measured) == (distance, measured)
    assert pickle.loads(pickle.dumps(goals)) == goals
    assert hash(pickle.loads(pickle.dumps(goals))) == hash(goals)
    env.close()


def test_success_along_one_coordinate_and_at_the_very_distance():
    goals = Goals(0.5, measured=slice(0, 2), judged=slice(0, 1), includes_boundary=True)
    achieved, goal = np.array([[0.5, 9.0], [0.6, 0.0]]), np.zeros((2, 2))
    assert goals.reached(achieved, goal).tolist() == [True, False]
    assert replace(goals, includes_boundary=False).reached(achieved, goal).tolist() == [False] * 2
    assert goals.at(2.0).reached(achieved, goal).all()
    assert goals.at("auto") is goals


def test_without_a_distance_nothing_can_be_reached():
    with pytest.raises(ValueError, match="No success distance is known"):
        Goals().reached(np.zeros(3), np.zeros(3))
