"""Time of one gradient update and of one relabelled batch, on one core, against three others.

    python benchmarks/throughput.py

The contestants take turns within every round, so that a slow spell of the machine hits all of them,
and ratios are formed round by round. Batches of 256, networks with two hidden layers of 256, the
shapes of FetchPush (observation 25, goal 3, action 4), one thread:

- `bare`: the same ODAC update as a plain PyTorch loop over batches and noise that lie ready in
  memory, normalised. First the same start and batches must take it to the learner's parameters.
- `rllib_odac`: `ODACTorchLearner.update`, with relabelled batches from its replay and with its
  metrics, called as `ODAC` calls it at its defaults: for 50 updates at once.
- `stable_baselines3`: SAC with `HerReplayBuffer` at its defaults. It learns no dynamics: three
  networks against ODAC's four.
- `rllib_sac`: RLlib's own SAC on the new API stack, as its `training_step` updates it: 256
  transitions from a uniform `EpisodeReplayBuffer`, then `LearnerGroup.update`. Observations are
  flat, nothing is relabelled. Its critics encode observation and action apart and fuse them; "lean"
  is without the layers that can be left out, which still makes larger critics than the others'.

Every replay holds the same transitions. They are made up, since no time depends on what they say;
FetchPush itself judges the goals that `HerReplayBuffer` relabels. Denormal numbers, which are slow,
are flushed to zero for all four; of them, only ODAC's learner does so by itself.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import torch
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.tune.registry import register_env
from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.logger import Logger
from torch import Tensor
from update_profile import profile_update

from rllib_odac import GoalEpisode, ODACConfig, make_env
from rllib_odac.agent.batch import Batch, make_batches
from rllib_odac.learner import UPDATES_PER_DRAW, ODACTorchLearner
from rllib_odac.maths import losses

BATCH, HIDDEN, STEPS = 256, (256, 256), 50
RATIOS = [
    ("rllib_odac", "bare"),
    ("stable_baselines3", "rllib_odac"),
    ("rllib_sac", "rllib_odac"),
    ("rllib_sac, lean", "rllib_odac"),
    ("HerReplayBuffer", "GoalReplay, 16 a draw"),
    ("HerReplayBuffer", "GoalReplay, singly"),
]
MACHINE = "matrix product 256x256"
Env = gym.Env[Any, Any]


class BareODAC:
    """The ODAC update as one writes it down in PyTorch, at ODAC's default settings.

    Args:
        learner: Whose networks, input statistics, settings and optimizer state it starts from.
    """

    def __init__(self, learner: ODACTorchLearner) -> None:
        config = learner.config
        self.module = copy.deepcopy(learner.networks)
        self.policy, self.critic = self.module.policy, self.module.critic
        self.target_critic, self.dynamics = self.module.target_critic, self.module.dynamics
        self.critic_weights: list[Tensor] = list(self.critic.parameters())
        self.target_weights: list[Tensor] = list(self.target_critic.parameters())
        trained = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=config.lr, fused=True)
        state = learner.get_optimizer(DEFAULT_MODULE_ID).state_dict()
        self.optimizer.load_state_dict(copy.deepcopy(state))
        self.prior, self.tau, self.kl_weight = config.prior_discount, config.tau, config.kl_weight
        self.max_logit = float(torch.tensor(learner.objective.max_discount).logit())
        self.v_max = self.dynamics.max_log_prob

    def update(self, batch: Batch) -> None:
        """One update of all networks."""
        inputs, next_inputs = batch.inputs.state_goal, batch.inputs.next_state_goal
        noise, next_noise = batch.noise
        transitions = batch.transitions

        displacement, log_scale = self.dynamics(batch.inputs.state_action)
        goal, to_goal = batch.inputs.goal, batch.inputs.goal_offset - batch.inputs.displacement
        log_prob_made = self.dynamics.log_prob(
            goal - to_goal, batch.inputs.displacement - displacement, log_scale
        )
        loss = losses.dynamics_loss(log_prob_made)

        with torch.no_grad():
            next_actions, next_log_prob = self.policy.sample(next_inputs, next_noise)
            next_q = self.target_critic(next_inputs, next_actions).amin(0)
            next_kl = losses.action_prior_kl(next_log_prob, next_actions)
            next_value = losses.soft_value(next_q, next_kl, self.kl_weight).clamp_max(self.v_max)
            log_prob_goal = self.dynamics.log_prob(
                goal, batch.inputs.goal_offset - displacement, log_scale
            )
            logit = losses.optimal_discount_logit(next_value, log_prob_goal, self.prior)
            logit = logit.clamp_max(self.max_logit)
            reward = losses.outcome_reward(log_prob_goal, logit, self.prior)
            target = losses.bellman_target(reward, torch.sigmoid(logit), next_value)

        loss += losses.critic_loss(self.critic(inputs, transitions.actions), target)
        new_actions, log_prob = self.policy.sample(inputs, noise)
        q_value = self.critic(inputs, new_actions, frozen=True).amin(0)
        kl = losses.action_prior_kl(log_prob, new_actions)
        loss += losses.policy_loss(q_value, kl, self.kl_weight)

        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.target_weights, self.critic_weights, self.tau)


def make_episodes(count: int) -> list[GoalEpisode]:
    """Episodes of FetchPush's shapes: uniform actions, and an object that wanders by chance."""
    rng, shape = np.random.default_rng(0), (count, STEPS + 1, 3)
    observations = rng.normal(size=(count, STEPS + 1, 25)).astype(np.float32)
    achieved = rng.normal(scale=0.02, size=shape).cumsum(axis=1).astype(np.float32)
    desired = rng.uniform(-0.15, 0.15, size=(count, 1, 3)).astype(np.float32)
    actions = rng.uniform(-1, 1, size=(count, STEPS, 4)).astype(np.float32)
    columns = (observations, achieved, np.broadcast_to(desired, shape), actions)
    return [GoalEpisode(*rows) for rows in zip(*columns, strict=True)]


def draw_batches(learner: ODACTorchLearner, count: int) -> list[Batch]:
    """The batches, noise included, that the learner's next `count` (at most 16) updates use."""
    generators = (learner.replay.generator, learner._noise)
    states = [generator.get_state() for generator in generators]
    draw = learner.replay.sample(count * BATCH)
    batches = make_batches(learner.networks, [draw], BATCH, learner._noise)
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
    return batches


def check_same_update(learner: ODACTorchLearner) -> None:
    """Lets the learner and a `BareODAC` make the same two updates from the same start.

    Raises:
        AssertionError: If a parameter then differs by 1 % of a step of Adam or has not moved.
    """
    before = copy.deepcopy(learner.networks.state_dict())
    bare, batches = BareODAC(learner), draw_batches(learner, 2)
    learner.update(num_updates=len(batches))
    for batch in batches:
        bare.update(batch)
    expected = bare.module.state_dict()
    for name, ours in learner.networks.named_parameters():
        torch.testing.assert_close(ours, expected[name], rtol=0, atol=0.01 * learner.config.lr)
        assert not torch.equal(ours, before[name]), f"Two updates left '{name}' as it was."


def make_sb3(env: Env, episodes: list[GoalEpisode], device: str = "cpu") -> SAC:
    """SAC of Stable-Baselines3 with hindsight, its replay filled."""
    networks, size = {"net_arch": list(HIDDEN)}, len(episodes) * STEPS
    replay = {"replay_buffer_class": HerReplayBuffer, "buffer_size": size}
    model = SAC("MultiInputPolicy", env, policy_kwargs=networks, device=device, **replay)
    model.set_logger(Logger(None, []))
    keys, compute_reward = list(model.observation_space), env.get_wrapper_attr("compute_reward")
    for e in episodes:
        rewards = compute_reward(e.achieved_goal[1:], e.desired_goal[1:], {})
        states = [{n: getattr(e, n)[i : i + 1] for n in keys} for i in range(STEPS + 1)]
        for i, (state, following) in enumerate(pairwise(states)):
            done = np.array([i == STEPS - 1])
            step = (state, following, e.actions[i : i + 1], rewards[i : i + 1], done)
            model.replay_buffer.add(*step, infos=[{"TimeLimit.truncated": done[0]}])
    return model


def make_rllib_sac(env: Env, episodes: list[GoalEpisode], **model: Any) -> Callable[[], object]:
    """RLlib's SAC with its replay filled, as a function that makes one update."""
    register_env("flat", lambda _: gym.wrappers.FlattenObservation(env))
    buffer = {"type": "EpisodeReplayBuffer", "capacity": len(episodes) * STEPS}
    config = SACConfig().environment("flat").rl_module(model_config=model)
    config.training(train_batch_size_per_learner=BATCH, replay_buffer_config=buffer)
    algorithm = config.build_algo()
    for e in episodes:
        flat = np.concatenate([e.achieved_goal, e.desired_goal, e.observation], axis=1)
        rows = {"observations": list(flat), "actions": list(e.actions), "rewards": [-1.0] * STEPS}
        episode = SingleAgentEpisode(**rows, truncated=True, len_lookback_buffer=0)
        algorithm.local_replay_buffer.add([episode])

    def update() -> None:
        settings = {"n_step": 1, "gamma": config.gamma, "sample_episodes": True}
        sample = algorithm.local_replay_buffer.sample(num_items=BATCH, **settings)
        algorithm.learner_group.update(episodes=sample, timesteps={})

    return update


def flops_of_update() -> int:
    """Operations in the matrix products of one ODAC update: 2 m n k in each."""

    def products(widths: list[int]) -> int:
        return sum(2 * BATCH * m * n for m, n in pairwise(widths))

    policy, critic, dynamics = ([n, *HIDDEN, m] for n, m in ((31, 8), (35, 1), (32, 6)))
    # Forward passes and gradients of weights, then gradients of all layers' inputs but the first's.
    of_policy = (2 + 1) * products(policy) + products(policy[1:])
    of_dynamics = (1 + 1) * products(dynamics) + products(dynamics[1:])
    # The policy's gradient goes through the critics as far as the 4 actions.
    of_critic = (3 + 1) * products(critic) + 2 * products(critic[1:]) + products([4, HIDDEN[0]])
    return of_policy + of_dynamics + 2 * of_critic


def make_learner(env: Env, episodes: list[GoalEpisode]) -> tuple[ODACTorchLearner, int]:
    """ODAC's learner with its replay filled, and how many updates one call of it makes."""
    config = (
        ODACConfig()
        .environment("FetchPush-v4")
        .training(hidden=HIDDEN, train_batch_size_per_learner=BATCH)
    )
    spaces = {DEFAULT_MODULE_ID: (env.observation_space, env.action_space)}
    learner = config.debugging(seed=0).build_learner(spaces=spaces)
    steps = config.num_envs_per_env_runner * config.rollout_fragment_length
    updates = int(config.updates_per_env_step * steps)  # in one call of the learner
    learner.update(episodes=episodes, num_updates=updates)
    return learner, updates


def measure(transitions: int, rounds: int) -> pd.DataFrame:
    """Milliseconds per unit of work of each contestant, by round."""
    env, episodes = make_env("FetchPush-v4"), make_episodes(transitions // STEPS)
    learner, updates = make_learner(env, episodes)
    check_same_update(learner)
    bare, ready = BareODAC(learner), cycle(draw_batches(learner, UPDATES_PER_DRAW))
    sb3 = make_sb3(env, episodes)
    stock = {"fcnet_hiddens": HIDDEN, "head_fcnet_hiddens": ()}
    lean = {"fcnet_hiddens": HIDDEN[:1], "head_fcnet_hiddens": HIDDEN[1:], "fusionnet_hiddens": ()}
    left, right = torch.randn(2, 256, 256)
    # What to call, how often in a round, and how many units of work one call makes.
    contestants: dict[str, tuple[Callable[[], object], int, int]] = {
        "bare": (lambda: bare.update(next(ready)), 2 * updates, 1),
        "rllib_odac": (lambda: learner.update(num_updates=updates), 2, updates),
        "stable_baselines3": (lambda: sb3.train(updates, BATCH), 2, updates),
        "rllib_sac": (make_rllib_sac(env, episodes, **stock), 8, 1),
        "rllib_sac, lean": (make_rllib_sac(env, episodes, **lean), 8, 1),
        "GoalReplay, 16 a draw": (lambda: learner.replay.sample(16 * BATCH), 20, 16),
        "GoalReplay, singly": (lambda: learner.replay.sample(BATCH), 200, 1),
        "HerReplayBuffer": (lambda: sb3.replay_buffer.sample(BATCH), 100, 1),
        MACHINE: (lambda: left @ right, 500, 1),
    }
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    times = pd.DataFrame(index=range(-1, rounds), columns=list(contestants), dtype=float)
    for index in times.index:
        for name, (call, calls, units) in contestants.items():
            torch.set_flush_denormal(True)  # again, for our learner turns it off at its end
            start = time.perf_counter()
            for _ in range(calls):
                call()
            times.loc[index, name] = 1e3 * (time.perf_counter() - start) / (calls * units)
    return times.drop(index=-1)  # it warmed up


def main() -> None:
    parser = argparse.ArgumentParser(description="Times gradient updates and relabelled batches.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--transitions", type=int, default=100_000, help="in each replay")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results"))
    parser.add_argument(
        "--profile", action="store_true", help="only say where an update's time goes"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.profile:
        episodes = make_episodes(options.transitions // STEPS)
        learner, _ = make_learner(make_env("FetchPush-v4"), episodes)
        table = profile_update(learner, draw_batches(learner, UPDATES_PER_DRAW))
        table.to_csv(options.output / "update_profile.csv", index=False)
        print(table.to_string(index=False))
        return
    load = os.getloadavg()
    times = measure(options.transitions, options.rounds)

    gflops = 2 * 256**3 / times[MACHINE] / 1e6
    ratios = pd.DataFrame({f"{a} / {b}": times[a] / times[b] for a, b in RATIOS})
    for name in RATIOS[0]:
        ratios[f"{name}, share of {MACHINE}"] = flops_of_update() / times[name] / 1e6 / gflops
    for title, table in (("ms per update, batch or product", times), ("ratios", ratios)):
        print(f"{title}:\n{table.agg(['median', 'min', 'max']).T.round(3).to_string()}\n")

    cpu = re.findall("model name.*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    rows = times.rename_axis("round").reset_index().melt("round", var_name="what", value_name="ms")
    machine = {"cpu": cpu, "threads": 1, "torch": torch.__version__}
    rows = rows.assign(**machine, gflops=rows["round"].map(gflops)).round(5)
    rows.to_csv(options.output / "throughput.csv", index=False)
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        "machine": machine | {"load_before": load},
        "versions": {n: version(n) for n in ("torch", "ray", "stable-baselines3")},
        "gflop_per_update": flops_of_update() / 1e9,
        "gflops_of_matrix_product": gflops.median(),
        "median_ms": times.median().to_dict(),
        "median_ratio": ratios.median().to_dict(),
    }
    (options.output / "throughput.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
