"""What a task's environment says of itself beside its spaces: names of its numbers, and how often it is asked."""

from dataclasses import replace

from rldistill.envs import PlayableTask
from rldistill.exports.names import Names, names_from

METADATA_KEY = "rldistill"
"""In the `metadata` of an environment's class: what `--names` holds."""
# Seconds between two decisions, as Gymnasium's own environments, MuJoCo's and Isaac Lab's call them.
_STEP_SECONDS = ("step_dt", "dt", "tau")


def names_of(playable: PlayableTask | None) -> Names:
    """Return what the environment of a task says of its numbers.

    Raises:
        UsageError: its metadata hold something else than names.
    """
    if playable is None:
        return Names()
    with playable.environment() as env:
        if env is None:
            return Names()
        names = names_from(env.metadata.get(METADATA_KEY, {}), f"The metadata of task {playable.task.name!r}")
        if names.control_rate_hz is not None:
            return names
        for attribute in _STEP_SECONDS:
            seconds = getattr(env.unwrapped, attribute, None)
            if isinstance(seconds, float) and seconds > 0:
                return replace(names, control_rate_hz=round(1 / seconds, 6))
        # Box2D's games advance by one frame for each decision, and say how many there are in a second.
        if type(env.unwrapped).__module__.startswith("gymnasium.envs.box2d"):
            return replace(names, control_rate_hz=float(env.metadata["render_fps"]))
        return names
