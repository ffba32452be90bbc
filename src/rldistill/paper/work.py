"""What the jobs of an experiment do. Each goes on where an earlier call of it stopped, and returns JSON data.

Keyword arguments that decide the result come first; `*_path` say where, `Machine` on what.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict, Unpack

import numpy as np

from rldistill.errors import RldistillError
from rldistill.events import Callback, Event, ProgressEvent
from rldistill.options.declaration import option_types
from rldistill.options.distill import Live, Online
from rldistill.policies import TorchPolicy, load_policy
from rldistill.reports.curves import FIGURE_FILE, online_curves
from rldistill.session.metrics import read_metrics
from rldistill.storage import write_atomically
from rldistill.tasks import ATARI_PREFIX
from rldistill.verbs.collect import collect
from rldistill.verbs.distill import distill
from rldistill.verbs.evaluate import evaluate
from rldistill.verbs.sources import CURVES_FILE
from rldistill.verbs.train_teacher import train_teacher

Settings = Mapping[str, Any]


class Machine(TypedDict):
    """Options of the verbs that do not decide a result."""

    device: str
    num_envs: NotRequired[int]
    num_threads: int
    callbacks: Sequence[Callback]


def provide_teacher(
    *,
    game: str,
    origin: str,
    policy_hash: str | None,
    seed: int,
    env: Settings,
    training: Settings,
    source_path: str | None,
    out_path: str,
    **machine: Unpack[Machine],
) -> dict[str, Any]:
    """Copy a teacher's file, unchanged since the plan was made, to `out_path`, or train one in a folder beside it."""
    out = Path(out_path)
    if source_path is None:
        task, folder = f"{ATARI_PREFIX}{game}", out.with_suffix("")
        result = train_teacher(task, out=folder, seed=seed, env_kwargs=env, resume=True, **machine, **training)
        source = result.last_policy
    else:
        source = Path(source_path)
    write_atomically(out, source.read_bytes())
    policy = load_policy(out)
    if policy_hash not in (None, policy.hash):
        raise RldistillError(f"{source.name} was changed while this ran: {policy.hash[:12]} is not {policy_hash}.")
    made = {"game": game, "origin": origin, "policy_hash": policy.hash, "output_kind": policy.output_kind}
    # Our own teachers were played in more episodes than an experiment plays; None: the experiment's decide.
    is_weak = policy.spec.provenance.get("weak", False) if origin == "zoo" else None
    return made | {"num_steps": policy.spec.provenance.get("num_steps"), "weak": is_weak}


def collect_data(
    *,
    game: str,
    seed: int,
    env: Settings,
    collect_settings: Settings,
    teacher_path: str,
    out_path: str,
    **machine: Unpack[Machine],
) -> dict[str, Any]:
    """Let a game's teacher play."""
    task = f"{ATARI_PREFIX}{game}"
    made = collect(
        teacher_path, task, out=out_path, seed=seed, env_kwargs=env, resume=True, **machine, **collect_settings
    )
    return {name: value for name, value in made.to_dict().items() if name != "path"}


def distill_student(
    *,
    games: Sequence[str],
    seed: int,
    env: Settings,
    distill_settings: Settings,
    data_paths: Sequence[str],
    teacher_paths: Sequence[str],
    out_path: str,
    **machine: Unpack[Machine],
) -> dict[str, Any]:
    """Make a student of one game or of several, from stored data, or where there are none, from teachers that play."""
    of_source, of_student = split_settings(distill_settings, Live)
    live = [
        Live(path, f"{ATARI_PREFIX}{game}", env_kwargs=env, **of_source)
        for game, path in zip(games, teacher_paths, strict=False)
    ]
    student = distill(live or list(data_paths), out=out_path, seed=seed, resume=True, **machine, **of_student)
    return _made(student) | {
        "held_out_agreement": student.spec.provenance.get("held_out_agreement"),
        "learned_nothing": _learned_nothing(student.spec.provenance, games),
    }


def _made(student: TorchPolicy) -> dict[str, Any]:
    return {"policy_hash": student.hash, "num_updates": student.spec.provenance["num_updates"]}


def split_settings(settings: Settings, source: type[Live | Online]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of a source, and those of the student that learns from it."""
    own = option_types(source)
    of_source = {name: value for name, value in settings.items() if name in own}
    return of_source, {name: value for name, value in settings.items() if name not in own}


def _learned_nothing(made: Mapping[str, Any], games: Sequence[str]) -> list[str]:
    """Return the games in which a student agrees with its teacher no more than a constant action would."""
    by_task = made.get("tasks") or {f"{ATARI_PREFIX}{games[0]}": made}
    records = {game: by_task[f"{ATARI_PREFIX}{game}"] for game in games}
    return [game for game, record in records.items() if record["held_out_agreement"] <= record["majority_share"]]


def distill_online(
    *, game: str, seed: int, env: Settings, online_settings: Settings, out_path: str, **machine: Unpack[Machine]
) -> dict[str, Any]:
    """Make a student of one game while its teacher learns it."""
    of_source, of_student = split_settings(online_settings, Online)
    source = Online(f"{ATARI_PREFIX}{game}", env_kwargs=env, **of_source)
    student = distill(source, out=out_path, seed=seed, resume=True, **machine, **of_student)
    folder = Path(out_path)
    online_curves(folder, folder / FIGURE_FILE)
    records = read_metrics(folder / CURVES_FILE)
    return _made(student) | {
        "best_hash": student.spec.provenance["teacher"]["hash"],
        "student_change": mean_change([record["student_scores"] for record in records]),
        "learner_change": mean_change([record["learner_scores"] for record in records]),
    }


def mean_change(curve: Sequence[Sequence[float]]) -> float | None:
    """Return how much a curve's mean scores change between evaluations, on average over its second half."""
    means = np.array([np.mean(scores) for scores in curve[len(curve) // 2 :]])
    return float(np.abs(np.diff(means)).mean()) if len(means) > 1 else None


def train_jointly(
    *,
    games: Sequence[str],
    seed: int,
    env: Settings,
    joint_settings: Settings,
    out_path: str,
    **machine: Unpack[Machine],
) -> dict[str, Any]:
    """Let one network learn all games by playing them, without teachers: the paper's baseline."""
    tasks = [f"{ATARI_PREFIX}{game}" for game in games]
    result = train_teacher(tasks, out=out_path, seed=seed, env_kwargs=env, resume=True, **machine, **joint_settings)
    made = {"policy_hash": load_policy(result.last_policy).hash, "num_steps": result.num_steps}
    return made | {"num_steps_of_each_game": result.num_steps // len(games)}


def evaluate_game(
    *,
    game: str,
    arms: Sequence[str],
    seed: int,
    env: Settings,
    evaluate_settings: Settings,
    student_paths: Sequence[str],
    teacher_path: str,
    **machine: Unpack[Machine],
) -> dict[str, Any]:
    """Play the same episodes with every arm's student, the teacher and random play; rows by arm."""
    machine["callbacks"] = [_summing(callback, len(arms) + 2) for callback in machine["callbacks"]]
    task = f"{ATARI_PREFIX}{game}"
    evaluation = evaluate(
        [*student_paths], task, teacher=teacher_path, seed=seed, env_kwargs=env, **machine, **evaluate_settings
    )
    rows = evaluation.to_dict()["policies"]
    if len(rows) != len(arms) + 2:
        raise RldistillError(f"{game}: {len(rows) - 2} students were played for {len(arms)} arms: one is the teacher.")
    return {"arms": dict(zip(arms, rows[1:-1], strict=True)), "teacher": rows[0], "random": rows[-1]}


def _summing(callback: Callback, num_policies: int) -> Callback:
    """Return a callback that is told of one phase for all policies, which play one after the other."""
    done_by_phase: dict[str, int] = {}

    def told(event: Event) -> bool | None:
        if not isinstance(event, ProgressEvent):
            return callback(event)
        done_by_phase[event.phase] = event.done
        done = sum(done_by_phase.values())
        return callback(ProgressEvent("evaluate", done, event.total * num_policies, event.unit))

    return told
