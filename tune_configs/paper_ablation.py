"""The paper's ablation: ODAC with a fixed density, a fixed discount, and both fixed.

    odac study tune_configs/paper_ablation.py --runs runs/paper
    odac compare runs/paper_ablation --metric normalized_distance

With the same --runs, the runs of ODAC are those of paper_comparison.py.
"""

from rllib_odac.experiments.study import Study

TASKS = (
    "box2d",
    "fetch_push",
    "fetch_push_own_goals",
    "sawyer_window",
    "sawyer_faucet",
    "sawyer_push",
    "metaworld_push",
    "ant",
)
# At the defaults, as the other methods; `fetch_reach.json` has what a sweep over ODAC's found.
FETCH_REACH = {"env": "FetchReach-v4", "steps": 6000, "evaluate_every": 500}
METHODS = {
    "odac": {},
    "fixed_dynamics": {"settings": {"learn_dynamics": False}},
    "fixed_discount": {"settings": {"learn_discount": False}},
    "fixed_both": {"settings": {"learn_dynamics": False, "learn_discount": False}},
}
# Mean and standard deviation for each of the methods. The paper names no unit; as percent of the
# initial distance they fit, and as nothing else.
PAPER = {
    "box2d": ((1.7, 1.20), (1.2, 0.14), (1.0, 0.24), (1.3, 0.29)),
    "ant": ((9, 0.48), (11, 0.57), (12, 0.41), (13, 0.20)),
    "sawyer_push": ((35, 2.7), (34, 1.5), (37, 1.5), (38, 3.1)),
    **dict.fromkeys(("fetch_push", "fetch_push_own_goals"), ((19, 6), (15, 3), (53, 13), (66, 15))),
    "sawyer_window": ((5.4, 0.62), (5.0, 0.62), (7.9, 0.71), (6.0, 0.12)),
    "sawyer_faucet": ((13, 4.2), (15, 3.3), (37, 8.3), (38, 7.2)),
}

study = Study(
    tasks={"fetch_reach": FETCH_REACH} | {task: f"{task}.json" for task in TASKS},
    methods=METHODS,
    labels={
        "odac": "ODAC, capped",
        "fixed_dynamics": "fixed p̂_d",
        "fixed_discount": "fixed q_T",
        "fixed_both": "both fixed",
    },
    reference={task: dict(zip(METHODS, rows, strict=True)) for task, rows in PAPER.items()},
)
