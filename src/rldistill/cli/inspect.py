"""`rldistill inspect`."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rldistill.cli.arguments import (
    Flags,
    parse,
    plain_line,
    require,
    resolve_machine,
    write_configuration,
    write_result,
)
from rldistill.errors import UsageError, printable
from rldistill.runs.config import InspectConfig, parse_options

_EXAMPLE = "rldistill inspect zoo/pong.safetensors"
# Characters of one value: what a file says of itself may be of any length.
_MOST_SHOWN = 4000


def run(argv: Sequence[str]) -> None:
    """Say what something is."""
    config, flags = parse("inspect", InspectConfig, argv, example=_EXAMPLE)
    if flags.resume or flags.overwrite or (flags.dry_run and not config.verify):
        raise UsageError("inspect only reads: --resume, --overwrite and --dry-run do not apply.")
    target = require(config.target, "a policy file, a dataset folder, a run folder or a preset", _EXAMPLE)
    if flags.dry_run:
        write_configuration(resolve_machine(config))
        return
    from rldistill.runs.describe import describe
    from rldistill.runs.loading import policy_file

    reading = policy_file(Path(target), config).reading
    options = parse_options(config.env_kwargs)
    if config.verify and config.heads is not None:
        raise UsageError("--verify plays a policy: --heads belongs with a preset.")
    description = describe(target, heads=config.head_sizes, reading=reading, task=config.task, env_kwargs=options)
    if config.verify:
        _verify(config, flags, description)
        return
    if flags.json:
        write_result(flags, description, "")
        return
    # What was asked for is the result, not progress: it belongs on stdout in words, too.
    width = max(map(len, description))
    for key, value in _lines(description):
        sys.stdout.write(f"{printable(key):<{width}}  {printable(_shown(value), _MOST_SHOWN)}\n")


def _verify(config: InspectConfig, flags: Flags, description: dict[str, Any]) -> None:
    """Play the policy; the result is printed before a gap becomes an error."""
    from rldistill.cli.progress import callbacks
    from rldistill.cli.verification import verification_text
    from rldistill.runs.loading import policy_file
    from rldistill.runs.verification import check_verified, verify

    if description["kind"] not in ("policy", "program"):
        raise UsageError(f"--verify plays a policy: {config.target} is a {description['kind']}.")
    config = resolve_machine(config)
    with callbacks(quiet=flags.quiet) as listeners:
        result = verify(
            policy_file(Path(config.target or ""), config),
            config.task,
            num_episodes=config.num_episodes,
            expected_return=config.expected_return,
            expected_standard_error=config.expected_standard_error,
            seed=config.seed,
            env_kwargs=parse_options(config.env_kwargs),
            num_envs=config.num_envs,
            num_threads=config.num_threads,
            device=config.device,
            callbacks=listeners,
        )
    if flags.json:
        write_result(flags, description | {"verification": result.to_dict()}, "")
    else:
        sys.stdout.write("".join(f"{plain_line(line)}\n" for line in verification_text(result).splitlines()))
    check_verified(result)


def _lines(description: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for key, value in description.items():
        if key == "tasks":
            # The first has just been told; those of the other heads follow it in the same words.
            for other in value[1:]:
                yield from other.items()
        else:
            yield key, value


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, dict):
        items: dict[object, object] = value  # pyright: ignore[reportUnknownVariableType]
        return ", ".join(f"{key} {item}" for key, item in items.items())
    return str(value)
