"""Short trainings that have to learn. The full ones, three seeds each, are `make learning`."""

from __future__ import annotations

import pytest

from rllib_odac import ODACConfig

pytestmark = pytest.mark.learning


def train(config: ODACConfig, steps: int, seed: int = 0) -> dict[str, float]:
    config.evaluation(evaluation_interval=None).debugging(seed=seed, log_level="ERROR")
    algorithm = config.build_algo()
    while algorithm.env_steps < steps:
        algorithm.train()
    algorithm.drain()
    result = algorithm.evaluate_held_out(100)
    algorithm.stop()
    return result


@pytest.mark.long
def test_the_arm_reaches_goals(ray_cluster):
    result = train(ODACConfig().environment("FetchReach-v4"), steps=2500)
    assert result["success_rate"] >= 0.95
    assert result["final_distance"] < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("num_learners", [0, 2])
def test_the_arm_learns_from_what_remote_ones_collect_meanwhile(ray_cluster, num_learners):
    config = ODACConfig().environment("FetchReach-v4").env_runners(num_env_runners=2)
    # two learners see twice as many transitions an update
    config.learners(num_learners=num_learners)
    config.training(train_batch_size_per_learner=128 if num_learners else 256)
    result = train(config, steps=3500)
    assert result["success_rate"] >= 0.9


@pytest.mark.slow
def test_the_ball_goes_round_the_box(ray_cluster):
    config = ODACConfig().environment("odac/Box2D-v0").training(updates_per_env_step=0.2)
    result = train(config, steps=8000)
    assert result["success_rate"] >= 0.85  # straight at the goal: 0.78


@pytest.mark.slow
@pytest.mark.parametrize(
    "ablation",
    [
        {"learn_dynamics": False},
        {"learn_discount": False},
        {"learn_dynamics": False, "learn_discount": False},
    ],
    ids=["fixed dynamics", "fixed discount", "fixed both"],
)
def test_ablations_learn_to_reach_too(ray_cluster, ablation):
    result = train(ODACConfig().environment("FetchReach-v4").training(**ablation), steps=3000)
    assert result["success_rate"] >= 0.6
