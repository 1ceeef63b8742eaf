"""The six tasks: Gymnasium's checker, pickling, seeding, goals that can be reached, distances."""

from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rllib_odac import make_env, make_vector_env
from rllib_odac.envs.base import GoalEnv

TASKS = {
    "box2d": ("odac/Box2D-v0", {}),
    "ant": ("odac/Ant-v0", {}),
    "ant_pose": ("odac/Ant-v0", {"goal": "pose"}),
    "fetch_push": ("odac/FetchPush-v0", {}),
    "fetch_push_hand": ("odac/FetchPush-v0", {"goal": "hand_object"}),
    "planar_push": ("odac/SawyerPush-v0", {}),
    "sawyer_push": ("odac/MetaWorldPush-v0", {}),
    "sawyer_push_object": ("odac/MetaWorldPush-v0", {"goal": "object"}),
    "faucet_open": ("odac/SawyerFaucet-v0", {"direction": "open"}),
    "faucet_close": ("odac/SawyerFaucet-v0", {"direction": "close", "goal": "object"}),
    "window_open": ("odac/SawyerWindow-v0", {"direction": "open"}),
    "window_close": ("odac/SawyerWindow-v0", {"direction": "close", "goal": "object"}),
}
GOAL_DIMS = {"box2d": 2, "ant": 2, "ant_pose": 15, "fetch_push_hand": 6, "planar_push": 4,
             "sawyer_push": 6, "faucet_open": 6, "window_open": 6}  # fmt: skip
# d <= or d < the success distance, d measured over these coordinates
SUCCESS = {
    "box2d": (slice(None), np.less),
    "ant": (slice(0, 2), np.less),
    "fetch": (slice(-3, None), np.less),
    "planar": (slice(None), np.less),
    "sawyer": (slice(-3, None), np.less_equal),
    "faucet": (slice(-3, None), np.less_equal),
    "window": (slice(-3, -2), np.less_equal),
}


@pytest.fixture(scope="module", params=list(TASKS))
def task(request):
    env_id, settings = TASKS[request.param]
    env = make_env(env_id, **settings)
    yield request.param, env
    env.close()


def episode(env, seed, steps=None):
    """Rows of an episode of random actions, to its end or for some steps."""
    observation, info = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    rows = [(observation, 0.0, False, False, info)]
    while not (rows[-1][3] or len(rows) - 1 == steps):
        rows.append(env.step(rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)))
    return rows


@pytest.mark.filterwarnings("ignore::UserWarning")  # an unbounded observation space is meant
def test_gymnasiums_checker_is_content(task):
    check_env(task[1].unwrapped, skip_render_check=True)


def test_float32_goals_of_the_documented_size(task):
    name, env = task
    observation, _ = env.reset(seed=0)
    assert set(observation) == {"observation", "achieved_goal", "desired_goal"}
    for key, values in observation.items():
        assert values.dtype == env.observation_space[key].dtype == np.float32
        assert values.shape == env.observation_space[key].shape
    assert observation["desired_goal"].shape == (GOAL_DIMS.get(name, 3),)
    assert env.unwrapped.goals.scale > env.unwrapped.goals.success_distance > 0


def test_same_seed_same_trajectory_and_another_after_it(task):
    _, env = task
    first, again, other = (episode(env, seed, steps=20) for seed in (3, 3, 4))
    for (one, *rest, info), (two, *rest_again, info_again) in zip(first, again, strict=True):
        assert all(np.array_equal(one[key], two[key]) for key in one)
        assert rest == rest_again
        assert info == info_again
    assert any(not np.array_equal(a[0][k], b[0][k]) for a, b in zip(first, other, strict=True)
               for k in a[0])  # fmt: skip
    env.reset(seed=3)
    next_goal = env.reset()[0]["desired_goal"]  # without a seed the stream goes on
    env.reset(seed=3)
    assert np.array_equal(env.reset()[0]["desired_goal"], next_goal)


def test_episodes_end_at_the_horizon_only_and_reward_is_success(task):
    _, env = task
    rows = episode(env, 1)
    assert len(rows) - 1 == env.spec.max_episode_steps
    assert not any(terminated for _, _, terminated, _, _ in rows)
    achieved = np.stack([observation["achieved_goal"] for observation, *_ in rows])
    goals = np.stack([observation["desired_goal"] for observation, *_ in rows])
    assert (goals == goals[0]).all()
    rewards = env.unwrapped.compute_reward(achieved, goals, {})
    assert rewards.shape == (len(rows),)
    assert rewards[1:].tolist() == [reward for _, reward, *_ in rows[1:]]
    assert [reward == 0 for reward in rewards] == [info["is_success"] for *_, info in rows]


def test_success_and_distance_are_the_definitions(task):
    name, env = task
    unwrapped = env.unwrapped
    part, compare = next(rule for prefix, rule in SUCCESS.items() if name.startswith(prefix))
    measured = slice(0, 2) if name.startswith(("ant", "box2d")) else slice(-3, None)
    if name == "planar_push":
        measured = slice(None)
    rng = np.random.default_rng(0)
    space = env.observation_space["desired_goal"]
    goals = rng.uniform(space.low, space.high, (500, *space.shape))
    achieved = goals + rng.normal(0, unwrapped.goals.success_distance, goals.shape)
    judged = compare(
        np.linalg.norm((achieved - goals)[:, part], axis=-1), unwrapped.goals.success_distance
    )
    assert 0 < judged.mean() < 1
    assert np.array_equal(unwrapped.compute_reward(achieved, goals, {}), judged - 1.0)
    observation, info = env.reset(seed=2)
    way = (observation["achieved_goal"] - observation["desired_goal"])[measured]
    assert info["final_distance"] == pytest.approx(np.linalg.norm(way), abs=1e-6)


def test_goals_are_in_the_goal_space_and_random(task):
    _, env = task
    space = env.observation_space["desired_goal"]
    goals = [env.reset(seed=seed)[0]["desired_goal"] for seed in range(20)]
    assert all(space.contains(goal) for goal in goals)
    assert len(np.unique(np.stack(goals), axis=0)) == 20


def test_a_pickled_environment_makes_the_same_episodes(task):
    _, env = task
    copy = pickle.loads(pickle.dumps(env.unwrapped))
    ours, theirs = episode(env, 5, steps=10), episode(copy, 5, steps=10)
    for (one, *_), (two, *_) in zip(ours, theirs, strict=True):
        assert all(np.array_equal(one[key], two[key]) for key in one)
    copy.close()


def test_asking_for_a_goal(task):
    name, env = task
    if name == "box2d":
        pytest.skip("its goals have obstacles to avoid: see test_box2d.py")
    space = env.observation_space["desired_goal"]
    wish = ((space.low + space.high) / 2).astype(np.float32)
    observation, info = env.reset(seed=0, options={"goal": wish.tolist()})
    assert np.array_equal(observation["desired_goal"], wish)
    assert info["final_distance"] == env.unwrapped.goal_distance(observation["achieved_goal"], wish)
    start = env.reset(seed=0)[0]["observation"]
    assert np.array_equal(start, observation["observation"])  # the same start as without a wish
    with pytest.raises(ValueError, match=r"has shape \(1,\), but must have"):
        env.reset(options={"goal": [0.0]})
    with pytest.raises(ValueError, match="outside the goal space, which goes from"):
        env.reset(options={"goal": space.high + 1})


def test_vectorised_environments_make_the_same_first_episode():
    for env_id, settings in (TASKS["fetch_push"], TASKS["window_open"]):
        vector = make_vector_env(env_id, 2, **settings)
        observation, info = vector.reset(seed=[7, 8])
        env = make_env(env_id, **settings)
        for i, seed in enumerate((7, 8)):
            alone, alone_info = env.reset(seed=seed)
            assert all(np.array_equal(observation[key][i], alone[key]) for key in alone)
            assert info["final_distance"][i] == alone_info["final_distance"]
        vector.close()
        env.close()


@pytest.mark.parametrize(("env_id", "setting"), [
    ("odac/Ant-v0", "goal"), ("odac/FetchPush-v0", "goal"), ("odac/MetaWorldPush-v0", "goal"),
    ("odac/SawyerFaucet-v0", "direction"), ("odac/SawyerWindow-v0", "goal"),
])  # fmt: skip
def test_an_unknown_word_is_refused_with_those_that_are_known(env_id, setting):
    with pytest.raises(ValueError, match=f"{setting} is 'sideways', but must be \""):
        make_env(env_id, **{setting: "sideways"})


# Sawyer: what Meta-World gets wrong for goal reaching --------------------------------------------

HANDLES = {
    "faucet_open": ("knob_Joint_1", 1),
    "faucet_close": ("knob_Joint_1", 0),
    "window_open": ("window_slide", 1),
    "window_close": ("window_slide", 0),
}
META_WORLD = {
    "sawyer_push": ("push-v3", "Push"),
    "faucet_open": ("faucet-open-v3", "FaucetOpen"),
    "faucet_close": ("faucet-close-v3", "FaucetClose"),
    "window_open": ("window-open-v3", "WindowOpen"),
    "window_close": ("window-close-v3", "WindowClose"),
}


def metaworld_policy(name):
    from metaworld import policies

    return getattr(policies, f"Sawyer{META_WORLD[name][1]}V3Policy")()


@pytest.mark.parametrize("name", HANDLES)
def test_the_goal_is_where_the_handle_is_at_its_joints_limit(name):
    env_id, settings = TASKS[name]
    env = make_env(env_id, **settings)
    joint, end = HANDLES[name]
    observation, _ = env.reset(seed=0)
    robot = env.unwrapped.simulator
    robot.data.joint(joint).qpos[:] = robot.model.joint(joint).range[end]
    reached = env.step(np.zeros(4, np.float32))[0]["achieved_goal"][-3:]
    # One step of the simulator lets the joint's limit push back by a millimetre or so.
    assert np.linalg.norm(reached - observation["desired_goal"][-3:]) < 0.005
    env.close()


@pytest.mark.parametrize("name", ["sawyer_push", *HANDLES])
def test_metaworlds_own_policies_reach_the_goals(name):
    env_id, settings = TASKS[name]
    env = make_env(env_id, **settings)
    policy = metaworld_policy(name)
    robot = env.unwrapped.simulator
    for seed in range(3):
        env.reset(seed=seed)
        successes = []
        for _ in range(150):
            raw = np.concatenate([robot._get_curr_obs_combined_no_goal(), np.zeros(18),
                                  robot._target_pos])  # fmt: skip
            action = np.clip(policy.get_action(raw), -1, 1).astype(np.float32)
            successes.append(env.step(action)[4]["is_success"])
        assert any(successes)
    env.close()


def test_the_first_observation_shows_the_first_state():
    for name in HANDLES:
        env_id, settings = TASKS[name]
        env = make_env(env_id, **settings)
        first, _ = env.reset(seed=1)
        then, *_ = env.step(np.zeros(4, np.float32))
        assert np.allclose(first["observation"][4:7], then["observation"][4:7], atol=1e-3)
        assert np.array_equal(first["observation"][:11], first["observation"][11:])
        assert np.array_equal(then["observation"][11:], first["observation"][:11])
        env.close()


def test_a_horizon_beyond_metaworlds_own():
    env = gym.make("odac/SawyerWindow-v0", max_episode_steps=520)
    assert len(episode(env, 0)) == 521
    env.close()


# The simulators observe faster than the original ones, and the same -------------------------------


def test_fetch_push_is_that_of_gymnasium_robotics():
    env, original = make_env("odac/FetchPush-v0"), gym.make("FetchPush-v4")
    rows = [(env.reset(seed=3)[0], original.reset(seed=3)[0])]
    rng = np.random.default_rng(3)
    for _ in range(50):
        seen = rows[-1][0]
        to_block = 10 * (seen["achieved_goal"] - seen["observation"][:3])
        action = np.clip(np.append(to_block, 0) + rng.normal(0, 0.3, 4), -1, 1).astype(np.float32)
        rows.append((env.step(action)[0], original.step(action)[0]))
    for ours, theirs in rows:
        assert all(np.array_equal(ours[key], theirs[key].astype(np.float32)) for key in theirs)
    assert np.linalg.norm(ours["achieved_goal"] - rows[0][0]["achieved_goal"]) > 0.05  # pushed
    env.close()
    original.close()


def test_ant_is_that_of_gymnasium():
    settings = {
        "exclude_current_positions_from_observation": False,
        "include_cfrc_ext_in_observation": False,
        "terminate_when_unhealthy": False,
    }
    env, original = make_env("odac/Ant-v0"), gym.make("Ant-v5", **settings)
    rows = [(env.reset(seed=3)[0], original.reset(seed=3)[0])]
    rng = np.random.default_rng(3)
    for _ in range(100):
        action = rng.uniform(-1, 1, 8).astype(np.float32)
        rows.append((env.step(action)[0], original.step(action)[0]))
    for ours, theirs in rows:
        assert np.array_equal(ours["observation"], theirs.astype(np.float32))
    env.close()
    original.close()


@pytest.mark.parametrize("name", ["sawyer_push", *HANDLES])
def test_sawyer_is_that_of_meta_world(name):
    import mujoco
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    env_id, settings = TASKS[name]
    env = make_env(env_id, **settings | {"goal": "object"})
    original = ALL_V3_ENVIRONMENTS[META_WORLD[name][0]]()
    original._set_task_called = original.seeded_rand_vec = True
    original._freeze_rand_vec = False
    original.seed(3)
    original.reset()
    mujoco.mj_forward(original.model, original.data)
    original._prev_obs = original._get_curr_obs_combined_no_goal()
    rows = [(env.reset(seed=3)[0], original._get_obs())]
    policy = metaworld_policy(name)
    rng = np.random.default_rng(3)
    for _ in range(150):
        seen = np.concatenate([rows[-1][1][:36], original._target_pos])
        action = np.clip(policy.get_action(seen) + rng.normal(0, 0.1, 4), -1, 1).astype(np.float32)
        rows.append((env.step(action)[0], original.step(action)[0]))
    for ours, theirs in rows:
        frames = np.concatenate([theirs[:11], theirs[18:29]])
        assert np.array_equal(ours["observation"], frames.astype(np.float32))
    assert np.linalg.norm(ours["achieved_goal"] - rows[0][0]["achieved_goal"]) > 0.05  # moved
    env.close()
    original.close()


def test_rotations_are_written_as_scipy_writes_them():
    from scipy.spatial.transform import Rotation

    from rllib_odac.envs.sawyer import _quaternion

    rotations = Rotation.random(1000, random_state=0)
    ours = [_quaternion(matrix.ravel()) for matrix in rotations.as_matrix()]
    theirs = [Rotation.from_matrix(matrix).as_quat() for matrix in rotations.as_matrix()]
    assert np.allclose(ours, theirs, rtol=0, atol=1e-12)


def test_the_base_class_is_what_unwrapped_gives(task):
    name, env = task
    assert name == "box2d" or isinstance(env.unwrapped, GoalEnv)


def test_where_an_ant_starts_says_nothing_of_its_goal():
    env = make_env("odac/Ant-v0")
    rows = [env.reset(seed=seed)[0] for seed in range(60)]
    starts, goals = (
        np.stack([row[key] for row in rows]) for key in ("achieved_goal", "desired_goal")
    )
    correlation = np.corrcoef(np.concatenate([starts, goals], axis=1).T)[:2, 2:]
    assert np.abs(correlation).max() < 0.4
    with pytest.raises(
        ValueError, match="terminate_when_unhealthy of odac/Ant-v0 is False and can"
    ):
        make_env("odac/Ant-v0", terminate_when_unhealthy=True)
