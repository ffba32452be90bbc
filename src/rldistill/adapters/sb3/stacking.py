"""Teachers that saw several observations as one vector: their environment must stack, since tasks here do not.

RL-Zoo does so in two ways. `HistoryWrapper` joins the latest observations and actions, before a
normaliser; `frame_stack` (`VecFrameStack`) joins the latest observations after it, so that statistics
are those of a single observation and the zeros after a reset are never normalised.
"""

from rldistill.adapters.sb3.normalizer import VecNormalizeRecord
from rldistill.adapters.sb3.spaces import Space
from rldistill.adapters.sb3.zoo_files import ZooFiles
from rldistill.errors import PolicyFileError
from rldistill.tasks import Task

_HISTORY = ("HistoryWrapper", "HistoryWrapperObsDict")


def check_stacking(
    space: Space, zoo: ZooFiles, record: VecNormalizeRecord | None, task: str | Task | None, *, source: str
) -> None:
    """Check that a teacher of stacked vectors plays a task that stacks them itself.

    Args:
        space: of its observations, as the network saw them.
        zoo: of the files beside its zip.
        record: of its normaliser; None: there is none.
        task: what the user says; only a whole task says what its observations are.
        source: what messages call the file.

    Raises:
        PolicyFileError: the task does not stack, or the statistics are those of a single observation.
    """
    stacking = _stacking(space, zoo)
    if stacking is None:
        return
    expected = space.num_inputs
    got = "no task" if task is None else f"task {task!r}"
    if isinstance(task, Task):
        if task.fingerprint.observation_shape == (expected,):
            _check_statistics(space, record, stacking, source)
            return
        got = f"{list(task.fingerprint.observation_shape)} from task {task.name!r}"
    raise PolicyFileError(
        f"{source} saw observations that {stacking} joins, as its config.yml says: got {got}, expected one vector of "
        f"{expected} numbers. Tasks here do not join them: register an environment that does, and name it: --task "
        "module:EnvId."
    )


def _stacking(space: Space, zoo: ZooFiles) -> str | None:
    """Return what joined observations to one vector, by name; None: nothing did."""
    if space.kind == "box" and len(space.shape) != 1:
        return None
    names = [name for name in zoo.wrappers if name in _HISTORY]
    if zoo.frame_stack > 1:
        names.append(f"VecFrameStack of {zoo.frame_stack} (frame_stack)")
    return " and ".join(names) or None


def _check_statistics(space: Space, record: VecNormalizeRecord | None, stacking: str, source: str) -> None:
    statistics = None if record is None else record.statistics.get("")
    if statistics is not None and statistics.mean.shape != space.shape:
        raise PolicyFileError(
            f"{source} saw observations that {stacking} joins after they were normalised: got statistics of shape "
            f"{list(statistics.mean.shape)} for observations {list(space.shape)}. Let your environment "
            "normalise too, before it joins them, and leave the file out with normalizer none."
        )
