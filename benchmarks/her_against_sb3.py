"""Our HER against Stable-Baselines3's, which nobody here wrote: is it at full strength?

    python benchmarks/her_against_sb3.py --task fetch_reach --seeds 0 1 2 3 4
    python benchmarks/her_against_sb3.py --task sawyer_window

All get the settings in `SETTINGS`: networks, learning rate, discount, temperature, target networks'
step, batch, updates per step, share of relabelled goals, reward, random actions. Runs take turns,
one core each, and are evaluated on the same held-out goals.

- `rllib_odac`: `odac train --objective her`.
- `stable_baselines3`: its networks get the numbers of an observation as they are.
- `stable_baselines3_same_inputs`: they get what ours get, normalised observations and the way to
  the goal. What still differs is the code, and the constant between their entropy bonus and our KL.

Rows go to `results/her_against_sb3_TASK.csv`, the curves to the picture beside it; runs whose rows
are there are not made again.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib
import numpy as np
import pandas as pd
import ray
import torch
from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv

from rllib_odac import make_env
from rllib_odac.agent.networks import RunningNormalizer
from rllib_odac.envs.goals import goals_of
from rllib_odac.experiments.run import Run
from rllib_odac.experiments.spec import RunSpec
from rllib_odac.runtime.evaluator import held_out_seeds

matplotlib.use("Agg")
from matplotlib import pyplot as plt

RESULTS = Path(__file__).parent / "results"
NUM_ENVS = 10
EPISODES = 20
SETTINGS: dict[str, dict[str, Any]] = {
    "fetch_reach": {
        **{"env": "FetchReach-v4", "steps": 6000, "evaluate_every": 500},
        **{"discount": 0.95, "temperature": 0.05, "updates_per_env_step": 0.5},
        **{"random_action_share": 0.1, "random_action_steps": 1},
    },
    "sawyer_window": {
        **{"env": "odac/SawyerWindow-v0", "steps": 100_000, "evaluate_every": 10_000},
        **{"discount": 0.98, "temperature": 0.05, "updates_per_env_step": 0.3},
        **{"random_action_share": 0.2, "random_action_steps": 10},
    },
}
SHARED: dict[str, Any] = {
    **{"lr": 1e-3, "tau": 0.05, "batch": 256, "hidden": (256, 256)},
    **{"start": 500, "capacity": 10**6},
}
STATE = ("observation", "desired_goal")
COLUMNS = ("env_steps", "updates", "wall_s", "success_rate", "final_distance")


def train_ours(settings: dict[str, Any], seed: int) -> pd.DataFrame:
    """Progress of one run of `objective="her"`."""
    spec = RunSpec(
        settings["env"],
        objective="her",
        steps=settings["steps"],
        seed=seed,
        settings={
            "prior_discount": settings["discount"],
            "kl_weight": settings["temperature"],
            "updates_per_env_step": settings["updates_per_env_step"],
            "random_action_share": settings["random_action_share"],
            "random_action_steps": settings["random_action_steps"],
            "num_envs_per_env_runner": NUM_ENVS,
            "num_initial_random_steps": SHARED["start"],
            "num_steps_before_learning": SHARED["start"],
            "train_batch_size_per_learner": SHARED["batch"],
            "replay_capacity": SHARED["capacity"],
            **{name: SHARED[name] for name in ("lr", "tau", "hidden")},
        },
        evaluate_every=settings["evaluate_every"],
        evaluation_episodes=EPISODES,
        final_episodes=EPISODES,
        checkpoint_every=10**9,
    )
    with tempfile.TemporaryDirectory() as directory:
        run = Run(spec, directory)
        run.train()
        return pd.DataFrame(run.rows)


class EveryCoordinate(gym.Wrapper[Any, Any, Any, Any]):
    """HER's reward on every coordinate of the goal, as our objective has it, hand included."""

    def __init__(self, env: gym.Env[Any, Any], success_distance: float) -> None:
        super().__init__(env)
        self.success_distance = success_distance

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any = None) -> Any:
        distance = np.linalg.norm(np.asarray(achieved_goal) - desired_goal, axis=-1)
        return (distance < self.success_distance).astype(np.float32) - 1

    def step(self, action: Any) -> Any:
        state, _, terminated, truncated, info = self.env.step(action)
        reward = self.compute_reward(state["achieved_goal"], state["desired_goal"])
        return state, float(reward), terminated, truncated, info


class Explorer(SAC):
    """SAC that keeps some random actions for some steps, as our env runners do."""

    share, hold = 0.0, 1
    _left: Any = None
    _held: Any = None

    def _sample_action(self, *args: Any, **kwargs: Any) -> Any:
        action, buffer_action = super()._sample_action(*args, **kwargs)
        if self._left is None:
            self._left, self._held = np.zeros(len(action), int), np.zeros_like(buffer_action)
        # So often that `share` of all actions are random ones.
        start = self.share / (self.hold * (1 - self.share) + self.share)
        begins = (self._left == 0) & (np.random.random(len(action)) < start)
        self._held[begins] = np.random.uniform(-1, 1, self._held[begins].shape)
        self._left[begins] = self.hold
        random = self._left > 0
        self._left[random] -= 1
        buffer_action = np.where(random[:, None], self._held, buffer_action)
        return self.policy.unscale_action(buffer_action), buffer_action


class SameInputs(BaseFeaturesExtractor):
    """What our networks get of a state: see `ODACRLModule.policy_inputs`."""

    def __init__(
        self, space: gym.spaces.Dict, normalizer: RunningNormalizer, center: Any, scale: float
    ) -> None:
        observation_dim, goal_dim = (space[name].shape[0] for name in STATE)
        super().__init__(space, observation_dim + 2 * goal_dim)
        self.normalizer = normalizer
        self.register_buffer("center", torch.as_tensor(center, dtype=torch.float32))
        self.scale = scale

    def forward(self, state: dict[str, torch.Tensor]) -> torch.Tensor:
        observation, goal, achieved = (state[name] for name in (*STATE, "achieved_goal"))
        way, place = (goal - achieved) / self.scale, (goal - self.center) / self.scale
        return torch.cat([self.normalizer(observation), place.clamp(-5, 5), way.clamp(-5, 5)], -1)


class Normalize(BaseCallback):
    """Takes new observations into the statistics, as our learner does."""

    def __init__(self, normalizer: RunningNormalizer) -> None:
        super().__init__()
        self.normalizer = normalizer

    def _on_step(self) -> bool:
        self.normalizer.update(torch.as_tensor(self.locals["new_obs"]["observation"]))
        return True


class Evaluation(BaseCallback):
    """Deterministic success and distance on held-out goals, every so many steps."""

    def __init__(self, env_id: str, every: int) -> None:
        super().__init__()
        self.env: Any = make_env(env_id)
        self.every = every
        self.rows: list[dict[str, float]] = []
        self.begin = time.perf_counter()

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every < NUM_ENVS:
            self.rows.append(self._evaluate())
        return True

    def _evaluate(self) -> dict[str, float]:
        ends = []
        for seed in held_out_seeds(EPISODES):
            state, info = self.env.reset(seed=seed)
            truncated = False
            while not truncated:
                action, _ = self.model.predict(state, deterministic=True)
                state, _, _, truncated, info = self.env.step(action)
            way = np.linalg.norm(state["achieved_goal"] - state["desired_goal"])
            ends.append((info["is_success"], info.get("final_distance", way)))
        success, distance = np.mean(ends, axis=0)
        return {
            "env_steps": self.num_timesteps,
            "updates": self.model._n_updates,
            "wall_s": round(time.perf_counter() - self.begin, 2),
            "success_rate": success,
            "final_distance": distance,
        }


def train_theirs(settings: dict[str, Any], seed: int, same_inputs: bool = False) -> pd.DataFrame:
    """Progress of one run of Stable-Baselines3's SAC with `HerReplayBuffer`."""
    probe: Any = make_env(settings["env"])
    goals = np.stack([probe.reset(seed=i)[0]["desired_goal"] for i in range(100)])
    normalizer = RunningNormalizer(probe.observation_space["observation"].shape[0])
    inputs: dict[str, Any] = {
        "features_extractor_class": SameInputs,
        "features_extractor_kwargs": {
            "normalizer": normalizer,
            "center": goals.mean(0),
            # As our learner finds it where the environment names none.
            "scale": goals_of(probe).scale or np.sqrt(3) * goals.std(0).max(),
        },
    }
    distance = goals_of(probe).success_distance
    distance = probe.unwrapped.distance_threshold if distance is None else distance

    def make() -> gym.Env[Any, Any]:
        return EveryCoordinate(make_env(settings["env"]), distance)

    model = Explorer(
        "MultiInputPolicy",
        DummyVecEnv([make] * NUM_ENVS),
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": 4, "goal_selection_strategy": "future"},
        policy_kwargs={"net_arch": list(SHARED["hidden"])} | (inputs if same_inputs else {}),
        learning_rate=SHARED["lr"],
        gamma=settings["discount"],
        ent_coef=settings["temperature"],
        tau=SHARED["tau"],
        batch_size=SHARED["batch"],
        buffer_size=SHARED["capacity"],
        # Theirs cannot relabel before each environment has ended an episode.
        learning_starts=max(SHARED["start"], NUM_ENVS * probe.spec.max_episode_steps),
        train_freq=1,
        gradient_steps=round(NUM_ENVS * settings["updates_per_env_step"]),
        seed=seed,
        device="cpu",
    )
    model.share, model.hold = settings["random_action_share"], settings["random_action_steps"]
    evaluation = Evaluation(settings["env"], settings["evaluate_every"])
    model.learn(settings["steps"], callback=[Normalize(normalizer), evaluation])
    return pd.DataFrame(evaluation.rows)


CONTESTANTS = {
    "rllib_odac": train_ours,
    "stable_baselines3": train_theirs,
    "stable_baselines3_same_inputs": functools.partial(train_theirs, same_inputs=True),
}


def plot(rows: pd.DataFrame, path: Path) -> None:
    """Success of every run over environment steps, and the mean of each library."""
    figure, ax = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
    for (library, part), color, line in zip(
        rows.groupby("library"), ("#0072b2", "#d55e00", "#009e73"), ("-", ":", "--"), strict=False
    ):
        for _, run in part.groupby("seed"):
            ax.plot(run["env_steps"], 100 * run["success_rate"], color=color, lw=0.8, alpha=0.4)
        judged = part.groupby("env_steps")["success_rate"]
        seeds = part["seed"].nunique()
        mean = 100 * judged.mean()[judged.count() == seeds]  # some seeds may have run for longer
        text = f"{library}, {seeds} seed{'s' * (seeds > 1)}"
        ax.plot(mean.index, mean, line, color=color, lw=2, label=text)
    ax.set(xlabel="environment steps", ylabel="success on held-out goals (%)", ylim=(-3, 103))
    ax.grid(alpha=0.3)
    figure.legend(loc="outside upper center")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Makes the runs that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=list(SETTINGS), default="fetch_reach")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    libraries = list(CONTESTANTS)
    parser.add_argument("--libraries", nargs="*", choices=libraries, default=libraries)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    path = arguments.output / f"her_against_sb3_{arguments.task}.csv"
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame({"library": [], "seed": []})
    for seed in arguments.seeds:
        for library in arguments.libraries:
            if ((rows["library"] == library) & (rows["seed"] == seed)).any():
                continue
            run = CONTESTANTS[library](SETTINGS[arguments.task], seed)
            run = run[list(COLUMNS)].assign(library=library, seed=seed)
            rows = pd.concat([rows, run])[["library", "seed", *COLUMNS]]
            rows.to_csv(path, index=False)
            print(f"{library}, seed {seed}: {run['success_rate'].iloc[-1]:.0%}", flush=True)
    plot(rows, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
