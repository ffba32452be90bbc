"""`rldistill collect`."""

from collections.abc import Sequence

from rldistill.cli.arguments import (
    parse,
    quoted,
    require,
    resolve_machine,
    tell_if_new,
    write_configuration,
    write_result,
)
from rldistill.verbs.config import CollectConfig, parse_options

_EXAMPLE = "rldistill collect zoo/pong.safetensors --num-steps 50000 --out data/pong"


def run(argv: Sequence[str]) -> None:
    """Collect a dataset."""
    config, flags = parse("collect", CollectConfig, argv, example=_EXAMPLE)
    teacher = require(config.teacher, "a teacher's policy file", _EXAMPLE)
    options = parse_options(config.env_kwargs)
    from rldistill.cli.progress import callbacks
    from rldistill.envs import make_task
    from rldistill.evaluation.table import size_text
    from rldistill.loading.named import policy_file
    from rldistill.verbs.collect import check_collection, collect

    config = resolve_machine(config)
    if config.task is not None:
        make_task(config.task, options)
    if flags.dry_run:
        file = policy_file(teacher, config)
        check_collection(file, config, options, resume=flags.resume, overwrite=flags.overwrite)
        write_configuration(config, flags)
        return
    tell_if_new(flags, config.out)
    with callbacks(quiet=flags.quiet) as listeners:
        summary = collect(
            policy_file(teacher, config),
            config.task,
            num_steps=config.num_steps,
            out=config.out,
            exploration_epsilon=config.exploration_epsilon,
            seed=config.seed,
            env_kwargs=options,
            num_envs=config.num_envs,
            num_threads=config.num_threads,
            device=config.device,
            resume=flags.resume,
            overwrite=flags.overwrite,
            callbacks=listeners,
        )
    write_result(
        flags,
        summary.to_dict(),
        f"{summary.path}: {summary.num_steps:,} steps of {summary.num_episodes} whole and "
        f"{summary.num_interrupted} cut episodes, {size_text(summary.num_bytes)}\n"
        f"next: rldistill distill {quoted(summary.path)} --out {quoted(f'runs/{summary.path.name}')}",
    )
