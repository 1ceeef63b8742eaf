"""ODAC and what it is compared with, on the paper's six tasks and on Fetch Reach.

    odac study tune_configs/paper_comparison.py --runs runs/paper
    odac compare runs/paper_comparison

Each method runs with its task's settings, but for what is said here.
"""

from rllib_odac.experiments.study import Study

TASKS = (
    "box2d",
    "fetch_push",
    "fetch_push_own_goals",  # as it was tuned before: without displaced goals, and a sharper p_ψ
    "sawyer_window",
    "sawyer_faucet",
    "sawyer_push",
    "metaworld_push",
    "ant",
)
# At the defaults, as the other methods; `fetch_reach.json` has what a sweep over ODAC's found.
FETCH_REACH = {"env": "FetchReach-v4", "steps": 6000, "evaluate_every": 500}
OWN_GOALS = {"relabel": "auto"}  # of methods that do not take those of hindsight alone

study = Study(
    tasks={"fetch_reach": FETCH_REACH} | {task: f"{task}.json" for task in TASKS},
    methods={
        "odac": {},
        # The paper's own q_Δ. A step of delay costs −log p0 nats under it, and nothing else.
        "uncapped": {"settings": {"max_discount": None, "prior_discount": 0.8}},
        # The best known weight for it; its reward of −1 a step leaves no room for dawdling.
        "her": {"objective": "her", "settings": {"kl_weight": 0.05}},
        "sac": {"objective": "sac", "settings": OWN_GOALS},
        # The reward of its paper, and a softer discriminator than its paper's: with K + 1 = 64
        # whatever lies farther off than a little looks the same.
        "discern": {
            "objective": "discern",
            "settings": {"objective_settings": {"reward": "clipped", "sharpness": 8}},
        },
        "uvd": {"objective": "uvd"},
        "contrastive": {"objective": "contrastive", "settings": OWN_GOALS},
        "quasimetric": {"objective": "quasimetric", "settings": OWN_GOALS},
    },
    labels={
        "odac": "ODAC, capped",
        "uncapped": "ODAC, uncapped",
        "her": "HER",
        "sac": "SAC",
        "discern": "DISCERN",
        "uvd": "UVD",
        "contrastive": "contrastive",
        "quasimetric": "quasimetric",
    },
)
