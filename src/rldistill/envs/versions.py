"""Versions of one environment: which are registered, and which took the place of one that is gone.

Gymnasium drops versions, and teachers outlive them: `LunarLander-v2` became `LunarLander-v3`; MuJoCo's `-v2` and
`-v3`, still registered, cannot be made. Of several successors the oldest is nearest to what a teacher was trained on.
"""

import contextlib
import warnings
from collections.abc import Generator, Mapping
from typing import Any, cast

import gymnasium
from gymnasium.envs.registration import parse_env_id


def other_versions(name: str) -> list[str]:
    """Return the ids of all other registered versions of an environment, oldest first; none for a foreign name."""
    module, colon, plain = name.rpartition(":")
    own = _parse(plain)
    if own is None:
        return []
    versions: dict[str, int] = {}
    for registered in cast(Mapping[str, Any], gymnasium.registry):
        other = _parse(registered)
        if other is not None and other[:2] == own[:2] and registered != plain:
            versions[f"{module}{colon}{registered}"] = other[2]
    return sorted(versions, key=lambda registered: versions[registered])


def successor(name: str) -> str | None:
    """Return the oldest later version of an environment that can be made here; None where there is none."""
    own = _parse(name.rpartition(":")[2])
    if own is None:
        return None
    later = [other for other in other_versions(name) if (_parse(other.rpartition(":")[2]) or own)[2] > own[2]]
    return next((other for other in later if _can_be_made(other)), None)


@contextlib.contextmanager
def older_versions_allowed() -> Generator[None]:
    """Let older versions be made on purpose: without Gymnasium's advice to take the newest."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*out of date", DeprecationWarning)
        yield


def _parse(name: str) -> tuple[str | None, str, int] | None:
    """Return namespace, name and version of an id; None where it is none, or has no version."""
    try:
        namespace, short, version = parse_env_id(name)
    except gymnasium.error.Error:
        return None
    return None if version is None else (namespace, short, version)


def _can_be_made(name: str) -> bool:
    with older_versions_allowed():
        try:
            gymnasium.make(name).close()
        except Exception:  # whatever an environment raises: this one is no successor
            return False
    return True
