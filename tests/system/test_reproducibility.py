"""One process: the same seed gives the same run, and a restored run goes on as if never stopped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tree

from rllib_odac import ODAC
from tests.conftest import small_config

pytestmark = pytest.mark.system


def snapshot(algorithm):
    """Everything that decides what a run does next, as arrays."""
    learner = algorithm.learner_group._learner
    state = {
        "module": learner.networks.state_dict(),
        "optimizer": learner._get_optimizer_state(),
        "noise": learner._noise.get_state(),
        "replay_rng": learner.replay.generator.get_state(),
        "replay": [vars_of(episode) for episode in learner.replay.episodes()],
        "runner_rng": str(algorithm.env_runner.rng.bit_generator.state),
        "counters": (algorithm.env_steps, algorithm.updates, algorithm.iteration),
    }
    return tree.map_structure(
        lambda leaf: np.array(leaf.cpu()) if torch.is_tensor(leaf) else leaf, state
    )


def vars_of(episode):
    return {name: getattr(episode, name) for name in episode.__slots__}


def assert_equal(first, second):
    tree.assert_same_structure(first, second)
    for (path, ours), theirs in zip(
        tree.flatten_with_path(first), tree.flatten(second), strict=True
    ):
        assert np.array_equal(ours, theirs), path


def figures(result):
    evaluated = result["evaluation"]["env_runners"]
    learned = result["learners"]["default_policy"]
    return (
        evaluated["success_rate"],
        evaluated["final_distance"],
        learned["critic_loss"],
        learned["dynamics_loss"],
    )


@pytest.mark.parametrize("settings", [{}, {"kl_weight": "auto", "num_envs_per_env_runner": 1}])
def test_the_same_seed_gives_the_same_run_bit_for_bit(ray_cluster, settings):
    runs = []
    for _ in range(2):
        algorithm = small_config(**settings).build_algo()
        results = [figures(algorithm.train()) for _ in range(3)]
        runs.append((results, snapshot(algorithm)))
        algorithm.stop()
    assert runs[0][0] == runs[1][0]
    assert_equal(runs[0][1], runs[1][1])


def test_another_seed_gives_another_run(ray_cluster):
    first, second = (small_config().debugging(seed=seed).build_algo() for seed in (0, 1))
    assert figures(first.train()) != figures(second.train())


EXPLORATION = {"exploration_goals": {"environment": 0.5, "rare": 0.5}, "random_action_steps": 5}


@pytest.mark.parametrize(
    ("env", "more"),
    [
        ("odac/Box2D-v0", EXPLORATION),
        pytest.param("FetchReach-v4", {"exploration_goals": "achieved"}, marks=pytest.mark.slow),
    ],
)
def test_a_restored_run_goes_on_bit_for_bit(ray_cluster, tmp_path, env, more):
    path = tmp_path / "a checkpoint"  # with a space
    # 12 environments of 50 steps: at the time of saving, episodes are open
    settings = {"kl_weight": "auto", "num_envs_per_env_runner": 12, **more}
    settings["updates_per_env_step"] = 0.13  # more than 100 updates after the restore
    algorithm = small_config(env, **settings).build_algo()
    for _ in range(2):
        algorithm.train()
    algorithm.save_to_path(str(path))
    saved = snapshot(algorithm)
    expected = [figures(algorithm.train()) for _ in range(2)]
    end = snapshot(algorithm)
    assert end["counters"][1] - saved["counters"][1] >= 100

    # into a fresh algorithm that has done something else meanwhile
    other = small_config(env, **settings).build_algo()
    other.train()
    other.restore_from_path(str(path))
    assert_equal(snapshot(other), saved)
    assert [figures(other.train()) for _ in range(2)] == expected
    assert_equal(snapshot(other), end)

    # back in time, in the run that went on
    algorithm.restore_from_path(str(path))
    assert [figures(algorithm.train()) for _ in range(2)] == expected
    assert_equal(snapshot(algorithm), end)

    # and from the checkpoint alone
    third = ODAC.from_checkpoint(str(path))
    assert_equal(snapshot(third), saved)
    assert [figures(third.train()) for _ in range(2)] == expected
    for algo in (algorithm, other, third):
        algo.stop()


def test_a_run_restored_before_its_first_update_goes_on_bit_for_bit(ray_cluster, tmp_path):
    config = small_config("FetchReach-v4", num_steps_before_learning=400)
    algorithm, other = config.build_algo(), config.build_algo()
    algorithm.train()
    assert algorithm.updates == 0
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    other.restore_from_path(str(tmp_path / "checkpoint"))
    assert figures(algorithm.train()) == figures(other.train())
    assert_equal(snapshot(algorithm), snapshot(other))
    for algo in (algorithm, other):
        algo.stop()


def test_a_learning_rate_schedule_follows_the_environment_steps(ray_cluster):
    algorithm = small_config(lr=[[0, 1e-3], [400, 1e-3], [1200, 1e-4]]).build_algo()
    rates = []
    for _ in range(4):
        algorithm.train()
        (optimizer,) = algorithm.learner_group._learner._named_optimizers.values()
        rates.append(optimizer.param_groups[0]["lr"])
    assert algorithm.env_steps == 1600
    assert rates == pytest.approx([1e-3, 5.5e-4, 1e-4, 1e-4])
    algorithm.stop()


def test_restored_runners_act_with_the_restored_weights(ray_cluster, tmp_path):
    algorithm = small_config().build_algo()
    algorithm.train()
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.train()
    algorithm.restore_from_path(str(tmp_path / "checkpoint"))
    learner = algorithm.learner_group._learner.networks.policy.state_dict()
    runner = algorithm.env_runner.module.networks.policy.state_dict()
    assert all(torch.equal(learner[name], runner[name]) for name in learner)
    algorithm.stop()


def test_a_checkpoint_of_another_environment_is_refused(ray_cluster, tmp_path):
    algorithm = small_config().build_algo()
    algorithm.train()
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    other = small_config("FetchReach-v4").build_algo()
    with pytest.raises(ValueError, match=r"is of 'odac/Box2D-v0', but this is 'FetchReach-v4'"):
        other.restore_from_path(str(tmp_path / "checkpoint"))
    other.stop()


def test_evaluation_is_deterministic_and_inside_the_bounds(ray_cluster):
    algorithm = small_config("FetchReach-v4").build_algo()
    algorithm.train()
    first = algorithm.evaluate_held_out(8)
    assert algorithm.evaluate_held_out(8) == first
    assert algorithm.evaluate_held_out(8, seed=1) != first
    runner = algorithm.eval_env_runner_group.local_env_runner
    space = runner.env.single_action_space
    rng = np.random.default_rng(0)
    for _ in range(50):
        observation = {
            "observation": rng.normal(scale=100, size=10),
            "achieved_goal": rng.normal(scale=100, size=3),
            "desired_goal": rng.normal(scale=100, size=3),
        }
        action = runner.act(observation)
        assert space.contains(action)
        assert np.array_equal(action, runner.act(observation))
    algorithm.stop()
