"""By which statistics a student normalises its inputs: its teacher's, or some that are measured for it."""

import math

from rldistill.data import TeacherEntry
from rldistill.data.manifest import DATASET_REMEDY
from rldistill.errors import DatasetError, first_line
from rldistill.networks import InputNormalization
from rldistill.sight import Sight, recorded_sight, shown_to
from rldistill.tasks import Task

# Added to variances that are measured: far less than the least that `NormalizeInput.measure` divides by.
_EPSILON = 1e-24


def teachers_statistics(teacher: TeacherEntry, task: Task, sight: Sight | None, what: str) -> InputNormalization | None:
    """Return the teacher's statistics of what the student sees; None: it has none of them.

    `what` is how an error calls the source. Raises DatasetError: what is recorded of the teacher cannot be used.
    """
    own, theirs = _recorded(teacher, what), recorded_sight(teacher.reading)
    if own is None or (sight is None and theirs is None):
        return own
    whole = task.fingerprint
    everything = range(math.prod(whole.observation_shape))
    known = {place: index for index, place in enumerate(everything if theirs is None else theirs.places(whole))}
    return own.at([known.get(place) for place in (everything if sight is None else sight.places(whole))])


def to_be_measured(task: Task, sight: Sight | None) -> InputNormalization:
    """Return what a source gives the mean and variance of what the student sees."""
    size = math.prod(shown_to(task, sight).fingerprint.observation_shape)
    return InputNormalization((0.0,) * size, (1.0,) * size, epsilon=_EPSILON)


def _recorded(teacher: TeacherEntry, what: str) -> InputNormalization | None:
    recorded = teacher.normalization
    if recorded is None:
        return None
    settings = {name: value for name, value in recorded.items() if name not in ("mean", "variance")}
    try:
        return InputNormalization.from_settings(recorded["mean"], recorded["variance"], settings)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
        text = f"{what}: the normalization of its teacher cannot be used: {reason}. {DATASET_REMEDY}"
        raise DatasetError(text) from error
