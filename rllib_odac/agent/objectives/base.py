"""`Objective`: the rule for reward and discount by which goal-reaching methods differ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from rllib_odac.agent.objectives.auxiliary import Auxiliary
from rllib_odac.replay.transitions import Transitions

if TYPE_CHECKING:
    from rllib_odac.agent.actor_critic import ActorCritic
    from rllib_odac.agent.batch import Inputs
    from rllib_odac.config import ODACConfig


class JudgedTransitions(NamedTuple):
    """B transitions with what is known of how well each serves its goal; all constant.

    Attributes:
        transitions: In the environment's units.
        log_prob_goal: (B,) log p_ψ(g | s, a) in nats, as a density in goal scales.
        goal_scale: () unit of goals, in the environment's units.
        learned_reward: (B,) of the objective's `Auxiliary`, where it gives one.
        disagreement: (B,) of the models that p_ψ is a mixture of, in goal scales; None of one.
    """

    transitions: Transitions
    log_prob_goal: Tensor
    goal_scale: Tensor
    learned_reward: Tensor | None = None
    disagreement: Tensor | None = None


class RewardAndDiscount(NamedTuple):
    """Reward and discount of B transitions.

    Attributes:
        reward: (B,).
        discount: (B,) in [0, 1], the weight of the next state's value.
        metrics: Further quantities worth a plot, by name.
    """

    reward: Tensor
    discount: Tensor
    metrics: Mapping[str, Tensor] = {}


class BaseObjective:
    """What every objective says of itself.

    Networks, exploration and updates are the same for every objective, so that a comparison
    compares objectives. One that learns something of its own, such as a discriminator, has an
    `Auxiliary` for it.

    Attributes:
        uses_dynamics: Whether the reward needs p_ψ; else the model is not learned.
        uses_time: Whether observations must end with the time; see `envs.time.show_time`.
        relabel: Probabilities of the strategies by which goals are relabelled, unless the
            configuration gives others.
        rules: What "auto" stands for in `values`, `extraction` and `conservative_weight`; those it
            leaves out go by whether there is an environment.
        auxiliary: What is learned besides actor, critics and model; None for nothing.
    """

    uses_dynamics: ClassVar[bool] = False
    uses_time: ClassVar[bool] = False
    relabel: ClassVar[Mapping[str, float]] = {"future": 0.8, "own": 0.2}
    rules: ClassVar[Mapping[str, Any]] = {}
    auxiliary: Auxiliary | None = None

    @classmethod
    def settings(cls, config: ODACConfig) -> dict[str, Any]:
        """Keyword arguments of this class that a configuration has settings for."""
        return {}


class Objective(BaseObjective, ABC):
    """A rule `(batch, next_value) -> (reward, discount)`, by which critics learn.

    Attributes:
        reward_is_local: Whether the reward of a transition depends on this transition and its goal
            alone, not on the rest of the batch.
    """

    reward_is_local: bool = True

    @abstractmethod
    def reward_and_discount(
        self, batch: JudgedTransitions, next_value: Tensor
    ) -> RewardAndDiscount:
        """Reward and discount of each transition; called without gradients.

        Args:
            batch: B transitions.
            next_value: (B,) V̂(s', g) of the target networks, within `value_bounds`, or that of
                staying at s' for ever where it is a terminal state.
        """

    def value_of_staying(self, batch: JudgedTransitions) -> Tensor:
        """(B,) value of a state that is never left, such as a terminal one; without gradients.

        Each further step is a transition from it to itself, at no cost of acting. Its value solves
        V = r + discount · V. Under the optimal q_Δ that is log p of staying: V and log p weigh the
        same, so that q_Δ is its prior. Under a constant discount it is r / (1 − γ).

        Args:
            batch: B transitions from a state to itself, with their log-likelihood of the goal.
        """
        backup = self.reward_and_discount(batch, batch.log_prob_goal)
        return backup.reward / (1 - backup.discount)

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        """Bounds that the true value function keeps, to which targets are clamped.

        Args:
            max_log_prob: Largest value of log p_ψ(g | s, a), in nats.
        """
        return None, None


class DirectObjective(BaseObjective, Auxiliary):
    """An objective whose networks give the values themselves: no critics, nothing is backed up."""

    def __init__(self) -> None:
        self.auxiliary = self

    @abstractmethod
    def action_value(self, networks: ActorCritic, inputs: Inputs, actions: Tensor) -> Tensor:
        """(B,) Q(s, a, g), differentiable to the actions alone.

        Args:
            networks: All of them.
            inputs: Of B transitions.
            actions: (B, A).
        """


AnyObjective = Objective | DirectObjective


class DiscountedObjective(Objective):
    """An objective whose discount is a constant γ.

    Args:
        discount: γ in (0, 1).
    """

    def __init__(self, discount: float) -> None:
        if not 0 < discount < 1:
            raise ValueError(f"discount is {discount}, but must be in (0, 1).")
        self.discount = discount

    @classmethod
    def settings(cls, config: ODACConfig) -> dict[str, Any]:
        return {"discount": config.prior_discount}

    def discounted(self, reward: Tensor) -> RewardAndDiscount:
        """A reward (B,) with the discount γ."""
        return RewardAndDiscount(reward, torch.full_like(reward, self.discount))
