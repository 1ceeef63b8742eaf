"""What trained networks infer: reward, dynamic discount, value and model, as arrays.

Every quantity comes from `agent.update`, by which the networks were trained, so that what is shown
is what was learned. Where training draws one action at s and one
at s', quantities here are means over several. Drawing them is `inference_plots`' part.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.agent.batch import Batch, prepare
from rllib_odac.agent.direct_update import direct_predictions
from rllib_odac.agent.objectives import AnyObjective, DirectObjective
from rllib_odac.agent.update import compute_update
from rllib_odac.maths.losses import (
    bellman_target,
    effective_horizon,
    soft_value,
    termination_probabilities,
)
from rllib_odac.replay.episodes import GoalEpisode
from rllib_odac.replay.transitions import Transitions

Array = NDArray[np.float64]
NUM_SAMPLES = 16  # actions that quantities are means over
ROWS_AT_ONCE = 32_768  # of a forward pass
# Of what an objective does not infer there is no picture.
INFERS_DISCOUNT = "discount_kl"
OF_DISCOUNT = ("log_prob_goal", INFERS_DISCOUNT)


def transitions(episode: GoalEpisode) -> Transitions:
    """An episode's T transitions with its own goal."""
    steps = len(episode)
    terminated = np.zeros(steps, dtype=bool)
    terminated[-1] = episode.terminated
    columns = {
        "observation": episode.observation[:-1],
        "next_observation": episode.observation[1:],
        "achieved_goal": episode.achieved_goal[:-1],
        "next_achieved_goal": episode.achieved_goal[1:],
        "goal": episode.desired_goal[:-1],
        "actions": episode.actions,
        "terminated": terminated,
        "relabelled": np.zeros(steps, dtype=bool),
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(c)) for name, c in columns.items()}
    return Transitions(**tensors)


@torch.no_grad()
def infer(
    networks: ActorCritic,
    objective: AnyObjective,
    rows: Transitions,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> dict[str, Array]:
    """The inferred quantities of transitions (s, a, s') and their goals g.

    Args:
        networks: The learner's.
        objective: By which they were trained.
        rows: B transitions, as of `transitions`.
        num_samples: Actions a ~ π(·|s, g) and a' ~ π(·|s', g) that quantities are means over.
        seed: Of these actions.

    Returns:
        (B,) each: `value`, the critics' V(s, g) = E_a[min_i Q_i(s, a, g)] − kl_weight · KL(π‖p);
        `next_value`, V̂(s', g) of the target critics, within the objective's bounds; `reward` and
        `discount`, the objective's (ODAC's r(s, a, g; q_Δ) and q_Δ(0)); `effective_horizon` in
        steps; `kl_cost`, kl_weight · KL(π‖p); and of objectives that infer their discount
        `log_prob_goal`, log p_ψ(g|s, a), and `discount_kl`; where p_ψ has several models also
        their `disagreement` in goal scales. Values and rewards are in nats, or in the objective's
        own units. `reward` is missing where it depends on the rest of the batch, and of a
        `DirectObjective` there are `value` and `kl_cost` alone.
    """
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, ROWS_AT_ONCE // num_samples)
    parts = []
    for i in range(0, len(rows.goal), chunk):
        part = rows.map(operator.itemgetter(slice(i, i + chunk)))
        parts.append(_infer_rows(networks, objective, part, num_samples, generator))
    quantities = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if "discount" in quantities:
        quantities["effective_horizon"] = effective_horizon(quantities["discount"])
    return {name: values.numpy() for name, values in quantities.items()}


def _infer_rows(
    networks: ActorCritic,
    objective: AnyObjective,
    rows: Transitions,
    num_samples: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    repeated = rows.map(lambda column: column.repeat_interleave(num_samples, 0))
    goal = repeated.goal
    noise = torch.randn((2, len(goal), networks.action_dim), generator=generator)
    auxiliary_noise = None
    if objective.auxiliary is not None:
        # These take part in the auxiliary loss, not in what is asked for here.
        repeated = repeated._replace(auxiliary_goal=goal)
        auxiliary_noise = torch.zeros_like(goal)
    inputs = prepare(networks, repeated)
    batch = Batch(repeated, inputs, noise, auxiliary_noise=auxiliary_noise)
    if isinstance(objective, DirectObjective):
        # Not its loss, which may pair every row with every other one.
        predictions, target = direct_predictions(networks, objective, batch), None
    else:
        _, predictions, target = compute_update(networks, objective, batch)
    quantities = {
        "value": soft_value(predictions.policy_q, predictions.policy_kl, predictions.kl_weight),
        "kl_cost": predictions.kl_weight * predictions.policy_kl,
    }
    if target is not None:
        backup = target.backup
        quantities |= {"next_value": target.next_value, "discount": backup.discount}
        if not isinstance(objective, DirectObjective) and objective.reward_is_local:
            quantities["reward"] = backup.reward
        names = (*(OF_DISCOUNT if INFERS_DISCOUNT in backup.metrics else ()), "disagreement")
        quantities |= {name: backup.metrics[name] for name in names if name in backup.metrics}
    return {
        name: values.double().view(-1, num_samples).mean(1) for name, values in quantities.items()
    }


def termination_times(discount: Array, num_steps: int | None = None) -> Array:
    """q_T of one episode; see `losses.termination_probabilities` for the equation.

    Args:
        discount: (T,) q_Δ(0) along the episode.
        num_steps: N ≥ T, to bring episodes to one length; T by default.

    Returns:
        (N + 1,): q_T(0) … q_T(N − 1), and the probability of a later time. After an episode's end
        nothing is known of q_Δ, so all of it counts as later.
    """
    probabilities = termination_probabilities(torch.from_numpy(discount)).numpy()
    result = np.zeros((num_steps or len(discount)) + 1)
    result[: len(discount)], result[-1] = probabilities[:-1], probabilities[-1]
    return result


def realised_return(quantities: Mapping[str, Array], last_value: float) -> float:
    """What an episode brought of what V(s0, g) promised, by the equation that V solves.

    V(s_t) = −kl_weight · KL(π‖p) + r_t + q_Δ(0) V(s_{t+1}), unrolled along the episode, with the
    target critics' V̂ for what is left at its end.

    Args:
        quantities: (T,) as of `infer`, along the episode.
        last_value: V̂(s_T, g).
    """
    reward, discount, kl_cost = (
        torch.from_numpy(quantities[name]).double() for name in ("reward", "discount", "kl_cost")
    )
    total = torch.tensor(last_value, dtype=torch.float64)
    for t in reversed(range(len(reward))):
        total = bellman_target(reward[t] - kl_cost[t], discount[t], total)
    return float(total)


@torch.no_grad()
def predict_next(networks: ActorCritic, rows: Transitions) -> dict[str, Array]:
    """The model's prediction of the next achieved goal, beside what was realised.

    Args:
        networks: The learner's.
        rows: B transitions, as of `transitions`.

    Returns:
        (B, G) each: `predicted` and `realised`, φ(s') − φ(s) in the task's units; `scale`, b of
        the density in the same units; and `central_probability`, that of the central interval that
        just contains what was realised, in [0, 1): see `GoalDynamics.central_probability`. Of an
        ensemble the first and third are means over its models, the interval is their mixture's, and
        `disagreement` (B,) is how far they are apart, in the task's units.
    """
    inputs, dynamics = prepare(networks, rows), networks.dynamics
    displacement, log_scale = dynamics(inputs.state_action)
    way = inputs.displacement
    unit = networks.goal_scale
    result = {
        "predicted": dynamics.averaged(displacement) * unit,
        "realised": way * unit,
        "scale": dynamics.averaged(log_scale.exp()) * unit,
        "central_probability": dynamics.central_probability(way - displacement, log_scale),
    }
    if (disagreement := dynamics.disagreement(displacement)) is not None:
        result["disagreement"] = disagreement * unit
    return {name: values.double().numpy() for name, values in result.items()}


def coverage(central_probability: Array, nominal: Sequence[float] | Array) -> Array:
    """Share of realised values within the predicted central intervals of `nominal` probability.

    Args:
        central_probability: As of `predict_next`, any shape.
        nominal: (N,) in [0, 1].

    Returns:
        (N,) shares in [0, 1]; equal to `nominal` if the scale is right.
    """
    return np.array([(central_probability <= level).mean() for level in nominal])


class PlaneFields:
    """Inferred quantities on a grid over the plane, for one goal.

    Attributes:
        x, y: (N,) coordinates of the grid.
        fields: By name (N, N), rows along y: `value` and, where the objective learns a model,
            `reward`, `discount`, `log_prob_goal` and, of several, `disagreement`, as of `infer`.
    """

    def __init__(self, x: Array, y: Array, fields: dict[str, Array]) -> None:
        self.x, self.y, self.fields = x, y, fields


def check_plane(episodes: Sequence[GoalEpisode]) -> None:
    """Refuses environments whose goal space is not the plane, or not all that is observed.

    Raises:
        ValueError: With one sentence on why.
    """
    goal_dim = episodes[0].desired_goal.shape[-1]
    if goal_dim != 2:
        raise ValueError(
            f"Goals have {goal_dim} coordinates, but fields over the plane need exactly 2."
        )
    for episode in episodes:
        if not np.array_equal(episode.observation, episode.achieved_goal):
            raise ValueError(
                "The observation is not the achieved goal, but fields over the plane need a plane "
                "that is all there is to a state."
            )


@torch.no_grad()
def plane_fields(
    networks: ActorCritic,
    objective: AnyObjective,
    goal: Sequence[float] | Array,
    extent: tuple[float, float, float, float],
    points: int = 61,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> PlaneFields:
    """The inferred quantities at every place, for one goal.

    Actions are those of the policy, a ~ π(·|s, g), and the next place is the learned model's median
    φ(s) + μ(s, a); quantities are means over the actions. Without a learned model there is no next
    place, and only the value is given.

    Args:
        networks: The learner's, of an environment whose observation is the achieved goal in a
            plane.
        objective: By which they were trained.
        goal: (2,).
        extent: x_min, x_max, y_min, y_max.
        points: N, of each side of the grid.
        num_samples: Actions of each place.
        seed: Of these actions.
    """
    x = np.linspace(*extent[:2], points)
    y = np.linspace(*extent[2:], points)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    place = torch.from_numpy(grid).float().repeat_interleave(num_samples, 0)
    goals = torch.as_tensor(np.asarray(goal), dtype=torch.float32).expand_as(place)
    inputs = networks.policy_inputs(place, place, goals)
    noise = torch.randn(
        (len(place), networks.action_dim), generator=torch.Generator().manual_seed(seed)
    )
    actions, _ = networks.policy.sample(inputs, noise)
    displacements, _ = networks.dynamics(networks.dynamics_inputs(place, place, actions))
    displacement = networks.dynamics.averaged(displacements)
    has_model = networks.dynamics.is_learned
    next_place = place + displacement * networks.goal_scale if has_model else place
    no = torch.zeros(len(place), dtype=torch.bool)
    rows = Transitions(place, next_place, place, next_place, goals, actions, no, no)
    quantities = infer(networks, objective, rows, num_samples=1, seed=seed + 1)
    of_model = ("reward", "discount", "value", "log_prob_goal", "disagreement")
    wanted = of_model if has_model else ("value",)
    fields = {
        name: quantities[name].reshape(points, points, num_samples).mean(-1)
        for name in wanted
        if name in quantities
    }
    return PlaneFields(x, y, fields)


def missing_quantities(networks: ActorCritic, objective: AnyObjective) -> list[str]:
    """One sentence on each quantity that this objective, or this ablation, does not infer."""
    name = type(objective).__name__.removesuffix("Objective")
    sentences = []
    if objective.uses_time:
        sentences.append(f"{name} knows the time: it infers no q_Δ and no termination time.")
    if not objective.uses_dynamics:
        sentences.append(
            f"{name} learns no model p_ψ(φ(s')|s, a): there is no log-likelihood of the goal, no "
            "calibration, and no field of what depends on the next state."
        )
        sentences.append(
            f"{name} learns values without rewards and a discount: there is no q_Δ and no "
            "termination time."
            if isinstance(objective, DirectObjective)
            else f"{name}'s discount is a constant: it infers no q_Δ and no termination time."
        )
    elif not networks.dynamics.is_learned:
        sentences.append(
            "The model is fixed, not learned: there is no calibration, and no field of what "
            "depends on the next state."
        )
    if not (isinstance(objective, DirectObjective) or objective.reward_is_local):
        sentences.append(
            f"{name}'s reward depends on the other goals of a training batch: it cannot be given "
            "for an episode by itself."
        )
    return sentences
