"""Random play of a task, kept from one evaluation to the next: it depends on no policy.

It lies in the user's cache, one file for each task, protocol and seed; RLDISTILL_CACHE names another folder, and empty
none. What was kept is never stale: a file's name is the hash of all that random play depends on, the versions of the
packages and our own code included. Environments whose code may change without a version, and settings that name a
file, are played anew every time.
"""

import functools
import hashlib
import os
import platform
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium
import torch

from rldistill.envs import EpisodeEnvs, PlayableTask
from rldistill.errors import RldistillError
from rldistill.events import Callback, tell
from rldistill.limits import JSON, read_file, read_json
from rldistill.policies import RandomPolicy
from rldistill.rollout.evaluate import EpisodeScore, PlayedEpisodes, play_episodes
from rldistill.seeding import episode_seed
from rldistill.storage import canonical_json, check_checksum, sha256_bytes, with_checksum, write_json, writing

FOLDER_VARIABLE = "RLDISTILL_CACHE"
_PACKAGES = ("ale-py", "box2d", "gymnasium", "mujoco", "numpy", "torch")
# Of our own package, what has a part in it.
_SOURCES = ("envs/*.py", "policies/*.py", "rollout/*.py", "seeding.py", "tasks.py", "types.py")


def play_random(
    playable: PlayableTask,
    envs: EpisodeEnvs,
    num_episodes: int,
    *,
    seed: int,
    on_step: Callable[[int], None],
    callbacks: Sequence[Callback],
) -> PlayedEpisodes:
    """Play the first episodes of a seed at random, or as many of them as were not kept.

    Args:
        playable: what is played.
        envs: of it.
        num_episodes: how many.
        seed: of the episodes.
        on_step: called after each lockstep with the number of episodes that are there; may raise to stop.
        callbacks: told when the play cannot be kept.
    """
    path = _kept_in(playable, seed)
    kept = [] if path is None else _read(path, seed)
    missing = range(len(kept), num_episodes)
    if not missing:
        return PlayedEpisodes(tuple(kept[:num_episodes]))
    played = play_episodes(
        RandomPolicy(playable.task),
        envs,
        missing,
        seed=seed,
        exploration_epsilon=playable.task.protocol.exploration_epsilon,
        on_step=lambda num_finished: on_step(len(kept) + num_finished),
    )
    episodes = (*kept, *played.episodes)
    if path is not None:
        try:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            found = [[episode.score, episode.length, episode.trace] for episode in episodes]
            write_json(path, with_checksum({"episodes": found}))
        except RldistillError as error:  # the evaluation is worth more than its cache
            tell(callbacks, f"random play is not kept for the next evaluation: {error}")
    return PlayedEpisodes(episodes)


def _kept_in(playable: PlayableTask, seed: int) -> Path | None:
    """Return the file of a task's random play; None where it is not kept."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        folder = _default_folder()
    if not folder or not _is_fixed_by_versions(playable):
        return None
    spec = None if playable.task.is_atari else gymnasium.registry[playable.task.name]
    try:
        # An id may be registered anew with other settings.
        registered = None if spec is None else spec.to_json()
    except (TypeError, ValueError):  # with objects
        return None
    key = {"task": playable.task.to_dict(), "registered": registered, "seed": seed, "made_by": _made_by()}
    return Path(folder) / "random-play" / f"{sha256_bytes(canonical_json(key).encode())}.json"


def _default_folder() -> str:
    """Return the user's cache; nothing where a process has no home."""
    try:
        return str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rldistill")
    except RuntimeError:
        return ""


def _is_fixed_by_versions(playable: PlayableTask) -> bool:
    """Return whether an environment is ale-py's or Gymnasium's own, as its package made it."""
    settings = playable.task.environment_kwargs.values()
    if playable.fixed_num_envs is not None or not all(isinstance(value, int | float) for value in settings):
        return False
    if playable.task.is_atari:
        return True
    spec = gymnasium.registry.get(playable.task.name)
    return spec is not None and str(spec.entry_point).startswith("gymnasium.envs.") and not spec.additional_wrappers


@functools.cache
def _made_by() -> dict[str, Any]:
    """Return what random play depends on beside task and seed: packages, our own code, and how numbers are computed."""
    code = hashlib.sha256()
    for path in sorted(path for pattern in _SOURCES for path in Path(__file__).parents[1].glob(pattern)):
        code.update(path.read_bytes())
    return {
        "packages": {name: _version(name) for name in _PACKAGES},
        "code": code.hexdigest(),
        "python": platform.python_version(),
        # The mathematics of the C library, and sums, differ in the last bits between processors.
        "machine": [platform.machine(), *platform.libc_ver(), torch.backends.cpu.get_cpu_capability()],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read(path: Path, seed: int) -> list[EpisodeScore]:
    """Return the episodes that were kept; none where there is no file, or it is damaged: it is then written anew."""
    try:
        data = read_json(read_file(path, JSON.num_bytes))
        check_checksum(data)
        rows = [(float(score), int(length), int(trace)) for score, length, trace in data["episodes"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [
        EpisodeScore(score, length, episode_seed(seed, index), trace)
        for index, (score, length, trace) in enumerate(rows)
    ]
