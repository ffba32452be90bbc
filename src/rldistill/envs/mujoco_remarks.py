"""MuJoCo's remarks, taken over: by itself it appends each to a MUJOCO_LOG.TXT in the user's folder and prints it.

What it says of the files of Gymnasium's own robots (nine times for nine environments) is for their makers; all else,
such as a simulation that became unstable, goes to the log `rldistill.mujoco`, which Python shows on stderr.
"""

import importlib
import logging
import sys
from typing import Any

import gymnasium

_log = logging.getLogger("rldistill.mujoco")
_FOR_THE_MAKERS = "is deprecated and will be removed in a future release"


def take_over_remarks(name: str) -> None:
    """Take MuJoCo's remarks over, where this task may load it or somebody did, and nobody else has taken them."""
    spec = gymnasium.registry.get(name.rpartition(":")[2])
    entry_point = "" if spec is None else str(spec.entry_point)
    if entry_point.startswith("gymnasium.envs.mujoco"):
        try:
            importlib.import_module("mujoco")
        except ImportError:
            return  # making the environment says so
    mujoco: Any = sys.modules.get("mujoco")
    if mujoco is not None and mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_tell)


def _tell(remark: str) -> None:
    """Pass a remark on; called from C, where an exception would end the process."""
    if _FOR_THE_MAKERS not in remark:
        _log.warning("MuJoCo: %s", " ".join(remark.split()))
