"""`rldistill evaluate`."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rldistill.cli.arguments import Flags, parse, repeated, require, resolve_machine, write_configuration, write_result
from rldistill.errors import RldistillError, UsageError
from rldistill.verbs.config import EvaluateConfig, parse_options, reading_of

if TYPE_CHECKING:
    from rldistill.evaluation.multitask import MultiTaskEvaluation
    from rldistill.evaluation.records import Evaluation

_EXAMPLE = "rldistill evaluate runs/pong-net3 --teacher zoo/pong.safetensors --num-episodes 30"


def run(argv: Sequence[str]) -> None:
    """Compare policies."""
    config, flags = parse("evaluate", EvaluateConfig, repeated(argv, "--teacher"), example=_EXAMPLE)
    policies = require(config.policies or None, "at least one policy file or run folder", _EXAMPLE)
    if flags.resume or flags.overwrite:
        raise UsageError("evaluate keeps no state: --resume and --overwrite do not apply. It is repeated as a whole.")
    options = parse_options(config.env_kwargs)
    from rldistill.cli.progress import callbacks
    from rldistill.envs import make_task
    from rldistill.evaluation.gate import check_retention, require_teachers
    from rldistill.evaluation.pairing import check_pairing
    from rldistill.evaluation.records import EvaluationNotWrittenError
    from rldistill.loading.named import policy_files
    from rldistill.verbs.evaluate import evaluate

    config = resolve_machine(config)
    if config.out is None and len(policies) == 1 and policies[0].is_dir():
        config = replace(config, out=policies[0] / "evaluation.json")
    for task in () if config.task is None else config.task.split(","):
        make_task(task.strip(), options)
    files = policy_files([*policies, *config.teacher], reading_of(config))
    given, teachers = files[: len(policies)], files[len(policies) :]
    if config.require_retention is not None:
        # Known before anything is played: an hour's evaluation must not end in wrong usage.
        require_teachers(given, config.tasks, teachers, env_kwargs=options)
    if flags.dry_run:
        check_pairing(given, config.tasks, teachers, device=config.device, env_kwargs=options)
        write_configuration(config, flags)
        return
    try:
        with callbacks(quiet=flags.quiet) as listeners:
            result = evaluate(
                given,
                config.tasks,
                teacher=teachers,
                num_episodes=config.num_episodes,
                seed=config.seed,
                exploration_epsilon=config.exploration_epsilon,
                env_kwargs=options,
                num_envs=config.num_envs,
                num_threads=config.num_threads,
                device=config.device,
                out=config.out,
                callbacks=listeners,
            )
    except EvaluationNotWrittenError as error:
        _print(error.evaluation, flags, error=error)
        raise
    if config.require_retention is None:
        _print(result, flags)
        return
    try:
        _print(result, flags, gate=check_retention(result, config.require_retention))
    except RldistillError as error:
        _print(result, flags, error=error)
        raise


def _print(
    result: "Evaluation | MultiTaskEvaluation", flags: Flags, *, gate: str = "", error: RldistillError | None = None
) -> None:
    """Print a result, whatever came of it; the error is told after it, or with `--json` in the same object."""
    if not flags.json:
        sys.stdout.write(f"{result}\n\n{gate}\n" if gate else f"{result}\n")
    elif error is None:
        write_result(flags, result.to_dict(), "")
    else:
        error.result = result.to_dict()
