"""A trained policy outside the trainer: arrays and JSON, needing NumPy and PyTorch alone.

`files` writes and reads the folder `policy/` that every checkpoint has, `network` is the policy as
one PyTorch module, `load` makes a function of it, `export` other formats.
"""

from __future__ import annotations

from rllib_odac.deploy.export import FORMATS, export_policy
from rllib_odac.deploy.load import Policy, load_policy

__all__ = ["FORMATS", "Policy", "export_policy", "load_policy"]
