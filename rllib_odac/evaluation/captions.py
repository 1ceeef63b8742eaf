"""What each picture of `odac inspect` shows, in plain words, with the equation drawn."""

from __future__ import annotations

from typing import NamedTuple


class Caption(NamedTuple):
    """Words that go with a picture.

    Attributes:
        title: A few words.
        equation: What is drawn, or "".
        text: What it shows and how to read it.
    """

    title: str
    equation: str
    text: str


def fields(infers: bool) -> Caption:
    """Of the plane; `infers`: whether the objective infers its reward and discount."""
    text = (
        "One row is one goal, the star. Colours say what the method has learned for a state at "
        "each place, with the policy's own actions there. White lines are episodes that seek the "
        "goal, from their circle; grey is where nobody can be. The value should fall with the "
        "length of the way round walls, not with the straight distance."
    )
    if not infers:
        return Caption("Over the plane", "V(s, g) = E_a[ Q(s, a, g) ] − w KL(π ‖ p)", text)
    return Caption(
        "Over the plane",
        "V(s, g) = E_a[ Q(s, a, g) ] − w KL(π ‖ p),   "
        "Q(s, a, g) = r(s, a, g; q_Δ) + q_Δ(0) E[ V(s', g) ]",
        f"{text} Reward and log-likelihood know only the next step, so they are high near the goal "
        "and flat elsewhere. The discount is the probability of going on: low where the outcome "
        "may come about now.",
    )


def episode(infers: bool, outcome: str) -> Caption:
    """Of one episode, whose goal is `outcome`: "reached" or "not reached"."""
    title = f"Along an episode: the goal is {outcome}"
    if not infers:
        return Caption(
            title,
            "",
            "Frames of the episode and, below them over the same time, the distance to the goal, "
            "the reward as the method pays it, its discount, and the learned value.",
        )
    return Caption(
        title,
        "r = q_Δ(1) log p(g | s, a) − KL(q_Δ ‖ p_Δ),   "
        "q_Δ(0) = σ( V(s', g) − log p(g | s, a) + logit p₀ ), at most its limit",
        "Frames of the episode and, below them over the same time, the distance to the goal, which "
        "the method is never told, and what it infers. As the goal comes within one step its "
        "log-likelihood jumps; the discount falls, because the outcome may come about now; and "
        "reward and value are at their highest. Where the goal is out of reach, all but the value "
        "stay where they are.",
    )


def termination() -> Caption:
    """Of termination times."""
    return Caption(
        "When the outcome comes about",
        "q_T(t) = q_Δ(1 | s_t, a_t) Π_{i<t} q_Δ(0 | s_i, a_i),   p_T(t) = (1 − p₀) p₀ᵗ",
        "Left: the termination time that the discounts along an episode amount to, as a mean over "
        "episodes, beside the prior, which knows nothing of goals; “later” is after the episode's "
        "end. Right: the median of each episode's q_T against the step that first came within the "
        "success distance. Where q_Δ(0) has an upper limit of p₀, going on is never more likely "
        "than under the prior, so a part of q_T always lies before the goal is there.",
    )


def calibration(distribution: str, is_ensemble: bool = False) -> Caption:
    """Of the model, "laplace" or "gaussian"; `is_ensemble`: whether it is a mixture of several."""
    part = "Laplace(φ'_i; φ_i + μ_i(s, a), b_i(s, a))"
    if distribution == "gaussian":
        part = "N(φ'_i; φ_i + μ_i(s, a), σ_i(s, a)²)"
    mixture = f"Π_i {part}"
    further = ""
    if is_ensemble:
        mixture = f"(1/E) Σ_e {mixture}"
        further = (
            " The prediction is the mean of the models, and intervals are those of their mixture. "
            "The third picture asks whether their disagreement u(s, a), the standard deviation of "
            "what they predict, tells where that mean is wrong: then the medians rise. It knows "
            "nothing of noise that no model could predict."
        )
    return Caption(
        "Is the model right about the next step?",
        f"p(φ(s') | s, a) = (1 − ε) {mixture} + ε m(φ')",
        "Left: by how much the achieved goal changes in a step, predicted against realised; on the "
        "line is right. Right: the share of realised values inside the predicted central "
        "intervals. On the line the scale is honest. Above it the scale is wider than it need be, "
        "as it must be where the floor of the scale, the sharpness of “reached”, is above the true "
        "noise; below it the model is too sure of itself. Intervals are of the learned part, "
        f"without the background ε.{further}",
    )


def value(has_return: bool) -> Caption:
    """Of first states; `has_return`: whether what was realised is known besides the distance."""
    title = "Did the value promise what came about?"
    if not has_return:
        return Caption(
            title,
            "",
            "Each mark is an episode: the value of its first state against the distance at the "
            "end. Good values should go with small distances.",
        )
    return Caption(
        title,
        "V(s₀, g)   against   Σ_t ( Π_{i<t} γ_i ) ( r_t − w KL_t )  +  ( Π_i γ_i ) V(s_T, g),   "
        "γ_i the discount",
        "Each mark is an episode. Left: the value of its first state against the rewards that were "
        "then realised, discounted as in training; below the line the critics promised too much. "
        "Right: against the distance at the end; good values should go with small distances. Where "
        "every goal is reached, no order of distances is to be expected.",
    )
