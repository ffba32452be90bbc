"""What runs leave in their folder, whichever verb's they are: what `--overwrite` may delete."""

import re
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path

from rldistill.limits import JSON, read_file, read_json
from rldistill.storage import is_temporary

CONFIG_FILE = "config.toml"
HEADER = "# rldistill "
"""What the first line of every configuration of ours begins with."""
OWN_FILES = frozenset(
    {
        CONFIG_FILE,
        "metrics.jsonl",
        "curves.jsonl",
        "curves.png",
        "checkpoint.ckpt",
        "student.safetensors",
        "best_policy.safetensors",
        "last_policy.safetensors",
        "evaluation.json",
        "results.json",
        "results.md",
        "results.png",
        "shrink.json",
        "shrink.png",
    }
)
# What a learner or a live source keeps of past play, a numbered folder for each.
REPLAY_FOLDER = "replay"
# Of `shrink`, of `distill --students` and of `reproduce`.
PART_FOLDERS = ("teachers", "data", "students", "evaluations")
# The files of students are named after their networks.
_STUDENT = re.compile(r"(.+-seed-\d+|(mlp|gru|conv|combined)-[\dx-]+|net\d+|dqn)\.safetensors")


def is_ours(config: Path, verb: str | None = None) -> bool:
    """Whether a configuration is one that a run wrote, of this verb or of any, not a user's own of the same name."""
    if not config.is_file():
        return False
    start = (HEADER if verb is None else f"{HEADER}{verb} ").encode()
    with config.open("rb") as file:
        return file.read(len(start)) == start


def foreign_items(folder: Path) -> Iterator[Path]:
    """Yield what no run wrote in the folder of a run."""
    for item in sorted(folder.iterdir()):
        if item.is_dir() and item.name == REPLAY_FOLDER:
            yield from _foreign_in_replays(item)
        elif item.is_dir() and item.name in PART_FOLDERS:
            yield from _foreign_in_parts(item)
        elif item.is_dir() or not (item.name in OWN_FILES | {".lock"} or _is_half_written(item)):
            yield item


def _is_half_written(path: Path) -> bool:
    """Whether a path is what a kill left of a file that runs write."""
    return any(is_temporary(path, name) for name in OWN_FILES)


def _foreign_in_replays(folder: Path) -> Iterator[Path]:
    from rldistill.data import is_replay_folder  # here: reading a configuration needs neither torch nor blosc2

    for item in sorted(folder.iterdir()):
        if not (item.is_dir() and is_replay_folder(item)):
            yield item


def _foreign_in_parts(folder: Path) -> Iterator[Path]:
    """Yield what no run wrote in a folder of students or of jobs: each job has a record, and a run or a dataset."""
    games = _games(folder.parent / CONFIG_FILE)
    for item in sorted(folder.iterdir()):
        if item.is_dir():
            yield from _foreign_in_job(item)
            continue
        is_student = folder.name == "students" and _STUDENT.fullmatch(item.name)
        # A teacher's file goes by its game; its record comes later.
        is_teacher = folder.name == "teachers" and item.suffix in (".safetensors", ".json") and item.stem in games
        is_half_written = any(is_temporary(item, name) for name in ("*.safetensors", "*.json"))
        if not (is_student or is_teacher or is_half_written or _is_record(item)):
            yield item


def _foreign_in_job(folder: Path) -> Iterator[Path]:
    from rldistill.data import is_dataset_file, is_dataset_folder

    if is_dataset_folder(folder):
        yield from (item for item in sorted(folder.iterdir()) if not is_dataset_file(item))
    elif is_ours(folder / CONFIG_FILE):
        yield from foreign_items(folder)
    else:  # stopped in its first moments, it holds nothing yet
        yield from (item for item in sorted(folder.iterdir()) if item.name != ".lock" and not _is_half_written(item))


def _games(config: Path) -> Collection[str]:
    """Return the games of a reproduction; of another run none."""
    try:
        games = tomllib.loads(config.read_text()).get("games", ())
    except (OSError, ValueError):
        return ()
    return games if isinstance(games, list) else ()


def _is_record(path: Path) -> bool:
    """Whether a path is the record of a job."""
    if path.suffix != ".json":
        return False
    try:
        return {"job", "settings", "result"} <= read_json(read_file(path, JSON.num_bytes)).keys()
    except (OSError, ValueError, AttributeError):
        return False
