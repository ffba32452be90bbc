"""`rldistill train-teacher`."""

from collections.abc import Sequence
from pathlib import Path

from rldistill.cli.options import read_options
from rldistill.cli.output import quoted, task_words, write_result
from rldistill.cli.run import run_verb
from rldistill.options.train_teacher import TrainTeacherOptions

_EXAMPLE = "rldistill train-teacher --task atari:pong --num-steps 2500000 --out runs/pong-teacher"


def run(argv: Sequence[str]) -> None:
    """Train a teacher."""
    given = read_options("train-teacher", [TrainTeacherOptions], argv, example=_EXAMPLE)
    from rldistill.verbs.train_teacher import check_training, train_teacher

    options = given.make(TrainTeacherOptions)
    result = run_verb(train_teacher, check_training, options, Path(options.out), given.flags)
    if result is None:
        return
    few = "unknown (too few games ended)"
    means = {task: few if mean is None else f"{mean:.4g}" for task, mean in result.mean_scores.items()}
    is_joint = len(means) > 1
    mean = ", ".join(f"{task} {mean}" if is_joint else mean for task, mean in means.items())
    # Heads of several tasks keep the settings that their file records.
    task = task_words(options.task_names, None if is_joint else options.env_kwargs)
    chosen_by = "mean normalised training score" if is_joint else "mean training score"
    write_result(
        given.flags,
        result.to_dict(),
        f"{result.num_steps:,} steps, mean score of the last training games {mean}\nlast policy: {result.last_policy}\n"
        f"best policy: {result.best_policy or 'none'} (by {chosen_by})\n"
        f"next: rldistill evaluate {quoted(result.last_policy)} {task}".rstrip(),
    )
