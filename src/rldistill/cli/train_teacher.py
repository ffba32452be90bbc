"""`rldistill train-teacher`."""

from collections.abc import Sequence

from rldistill.cli.arguments import parse, quoted, tell_if_new, write_configuration, write_result
from rldistill.verbs.teacher_config import TrainTeacherConfig

_EXAMPLE = "rldistill train-teacher --task atari:pong --num-steps 2500000 --out runs/pong-teacher"


def run(argv: Sequence[str]) -> None:
    """Train a teacher."""
    config, flags = parse("train-teacher", TrainTeacherConfig, argv, example=_EXAMPLE)
    from rldistill.cli.progress import callbacks
    from rldistill.verbs.train_teacher import check_training, resolve, run_train_teacher

    config = resolve(config, resume=flags.resume)
    if flags.dry_run:
        check_training(config, resume=flags.resume, overwrite=flags.overwrite)
        write_configuration(config, flags)
        return
    tell_if_new(flags, config.out)
    with callbacks(quiet=flags.quiet) as listeners:
        result = run_train_teacher(config, resume=flags.resume, overwrite=flags.overwrite, callbacks=listeners)
    few = "unknown (too few games ended)"
    means = {task: few if mean is None else f"{mean:.4g}" for task, mean in result.mean_scores.items()}
    is_joint = len(means) > 1
    mean = ", ".join(f"{task} {mean}" if is_joint else mean for task, mean in means.items())
    chosen_by = "mean normalised training score" if is_joint else "mean training score"
    write_result(
        flags,
        result.to_dict(),
        f"{result.num_steps:,} steps, mean score of the last training games {mean}\nlast policy: {result.last_policy}\n"
        f"best policy: {result.best_policy or 'none'} (by {chosen_by})\n"
        f"next: rldistill evaluate {quoted(result.last_policy)}",
    )
