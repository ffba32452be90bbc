"""From a teacher to a proven student in one call; each phase goes on where it stopped.

With a network that is named: collect, distil, evaluate, draw, film. Without one, `shrink` takes the
place of the first two.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rldistill.envs import PlayableTask
from rldistill.errors import OutputExistsError, RldistillError, check_installed, first_line
from rldistill.evaluation.table import evaluation_table
from rldistill.events import MessageEvent, ProgressEvent, StopRequestedError, notify
from rldistill.limits import JSON, read_file, read_json
from rldistill.loading.bundled import bundled_teacher
from rldistill.loading.named import as_named, as_teacher, files_of
from rldistill.loading.several import choose_text
from rldistill.options.distill import Live
from rldistill.options.quickstart import QuickstartOptions
from rldistill.options.shared import recorded
from rldistill.policies import Policy, TorchPolicy
from rldistill.reports.curves import size_curve
from rldistill.reports.figures import learning_curve
from rldistill.reports.video import side_by_side
from rldistill.session.own_files import is_ours
from rldistill.session.run_folder import (
    changed_settings,
    check_place,
    earlier_run,
    keep_inputs,
    read_config,
    write_config,
)
from rldistill.storage import canonical_json, is_temporary, write_atomically, write_json
from rldistill.verbs.collect import collect
from rldistill.verbs.distill import distill
from rldistill.verbs.distillation_run import STUDENT_FILE
from rldistill.verbs.evaluate import evaluate
from rldistill.verbs.shrink import shrink

# Evaluation meets episodes that neither collection nor training has seen.
_EVALUATION_SEED = 1_000
_FILMED_STEPS = 600
_WITHIN, _NUM_STEPS, _NUM_UPDATES = 600.0, 60_000, 12_000
_CONFIG_FILE = "quickstart.toml"
_TABLE_FILE = "evaluation.txt"
# What every phase takes as it is given.
_SHARED = ("seed", "num_envs", "num_threads", "device", "overwrite", "callbacks")
# A second call may evaluate longer, or on another machine.
_MAY_DIFFER = frozenset({"out", "num_episodes", "within", "num_threads", "device", "trust"})


@dataclass(frozen=True)
class QuickstartResult:
    """What quickstart left.

    Attributes:
        student: policy file.
        evaluation: as JSON.
        table: text file, the same for people.
        figure: PNG of the learning curve, or of what the sizes keep.
        video: MP4 of teacher and student side by side; None where the task cannot be filmed.
    """

    student: Path
    evaluation: dict[str, Any]
    table: Path
    figure: Path
    video: Path | None


def quickstart(options: QuickstartOptions) -> QuickstartResult:
    """Find or distil a student, evaluate, draw and film it; what an earlier call finished is not done again.

    Raises:
        OutputExistsError: `out` holds something that is not a quickstart's.
        RldistillError: an earlier call in `out` had other settings, …
        KeyboardInterrupt: stopped; the next call goes on.
    """
    out = Path(options.out)
    teacher, playable = load_teacher(options)
    _check_begun(out, options)
    run = out / "run"
    # Every phase goes on where an earlier call stopped.
    shared: dict[str, Any] = {name: getattr(options, name) for name in _SHARED} | {"resume": not options.overwrite}
    if options.network is None:
        write_config(out, "quickstart", _recorded(options), name=_CONFIG_FILE)
        within = _WITHIN if options.within is None else options.within
        said = _said_of_teacher(options) | options.of_student
        found = shrink(_named(options), options.task, within=within, out=run, **said, **shared)
        notify(options.callbacks, MessageEvent(found.verdict))
        student, figure = found.student, size_curve(found.to_dict(), out / "sizes.png")
        evaluation = _evaluated(out, options, playable, student, teacher)
    else:
        student = _distilled(options, options.network, shared)
        evaluation = _evaluated(out, options, playable, student, teacher)
        figure = learning_curve(run, out / "learning_curve.png", evaluation)
    video, of_film = out / "teacher_and_student.mp4", out / "teacher_and_student.json"
    shown = canonical_json({"teacher": teacher.hash, "student": student.hash}).encode()
    is_filmed = video.is_file() and of_film.is_file() and of_film.read_bytes() == shown and not options.overwrite
    if not is_filmed and (is_filmed := _film(teacher, student, playable, video, options)):
        write_atomically(of_film, shown)
    return QuickstartResult(run / STUDENT_FILE, evaluation, out / _TABLE_FILE, figure, video if is_filmed else None)


def load_teacher(options: QuickstartOptions) -> tuple[Policy, PlayableTask]:
    """Return the teacher, or the several of a task as one, and its task, after checking the folder.

    Raises:
        OutputExistsError: `out` holds something that is not a quickstart's.
        RldistillError: the teacher cannot be read, or does not fit the task, or nothing can be drawn here.
    """
    check_installed("matplotlib", what="The figure of a quickstart", extra="report")
    named, out = as_named(_named(options), options, options.choose), Path(options.out)
    keep_inputs(out, files_of([named]), overwrite=options.overwrite)
    check_folder(out)
    earlier_run(out / "run", resume=True, overwrite=options.overwrite)
    said = Live(named, teacher_sees=options.teacher_sees, behaviour=options.behaviour)
    return as_teacher(named, options.task, said, device=options.device, names=options.names)


def _recorded(options: QuickstartOptions) -> dict[str, Any]:
    return recorded(options) | {"choose": choose_text(options.choose)}


def _named(options: QuickstartOptions) -> Any:  # noqa: ANN401 a file, or NAME=FILE of several
    return options.teacher or bundled_teacher("pong")


def _said_of_teacher(options: QuickstartOptions) -> dict[str, Any]:
    """Return what the user said of the teacher, as `collect` and `shrink` take it."""
    sees = {"choose": options.choose, "teacher_sees": options.teacher_sees, "names": options.names}
    return options.as_reading().to_dict() | {"trust": options.trust} | sees


def _distilled(options: QuickstartOptions, network: str, shared: dict[str, Any]) -> TorchPolicy:
    """Return the student of a network that is named."""
    out, num_updates = Path(options.out), options.num_updates or _NUM_UPDATES
    num_steps = options.num_steps or _NUM_STEPS
    said = _said_of_teacher(options)
    collect(_named(options), options.task, num_steps=num_steps, out=out / "data", **said, **shared)
    write_config(out, "quickstart", _recorded(options), name=_CONFIG_FILE)
    return distill(
        out / "data",
        out=out / "run",
        student=network,
        num_updates=num_updates,
        evaluate_period=max(1, min(500, num_updates // 4)),
        evaluate_episodes=0,  # of more episodes below
        **options.of_student,
        **shared,
    )


def check_folder(folder: Path) -> None:
    """Check that a folder, whose files may be replaced, holds a quickstart or nothing, else raise OutputExistsError."""
    check_place(folder)
    if not folder.is_dir() or is_ours(folder / _CONFIG_FILE, "quickstart"):
        return
    # A call that was stopped while it collected leaves `data` alone, which `collect` checks.
    foreign = [item.name for item in folder.iterdir() if item.name != "data" and not is_temporary(item, _CONFIG_FILE)]
    if foreign:
        raise OutputExistsError(
            f"--out {folder} exists and is not a quickstart's: found {min(foreign)}. Choose another --out."
        )


def _check_begun(out: Path, options: QuickstartOptions) -> None:
    """Check that an earlier call in this folder had these settings. Raises RldistillError: names those that differ."""
    path = out / _CONFIG_FILE
    if not path.is_file():
        return
    if options.overwrite:
        # No settings yet, but the folder stays ours: a stop before the next ones are written can be followed by a call.
        write_config(out, "quickstart", {}, name=_CONFIG_FILE)
    before = read_config(path)
    if not before:
        return
    now = _recorded(options)
    if changed := changed_settings(before, now, keys=(before.keys() | now.keys()) - _MAY_DIFFER):
        raise RldistillError(
            f"quickstart goes on with what {options.out} holds, which began with other settings: {'; '.join(changed)}. "
            "Use the same, name another --out, or delete the earlier run with --overwrite."
        )


def _evaluated(
    out: Path, options: QuickstartOptions, playable: PlayableTask, student: TorchPolicy, teacher: Policy
) -> dict[str, Any]:
    """Evaluate the student, if an earlier call has not, and return the evaluation as JSON."""
    path, shown = out / "run" / "evaluation.json", out / _TABLE_FILE
    if path.is_file() and shown.is_file():
        try:
            found = read_json(read_file(path, JSON.num_bytes))
            played = [(row["policy_hash"], len(row["episodes"])) for row in found["policies"][:2]]
        except (ValueError, KeyError, TypeError) as error:
            raise RldistillError(
                f"{path} is damaged: {first_line(error)}. Delete it, and it is played again."
            ) from error
        if played == [(policy.hash, options.num_episodes) for policy in (teacher, student)]:
            notify(options.callbacks, MessageEvent(f"{path} already holds this student's evaluation"))
            return found
    result = evaluate(
        student,
        playable,
        teacher=teacher,
        num_episodes=options.num_episodes,
        seed=options.seed + _EVALUATION_SEED,
        **{name: getattr(options, name) for name in ("num_envs", "num_threads", "device", "callbacks")},
    )
    # The table first: a stop between the two is followed by another evaluation.
    write_atomically(shown, evaluation_table(result).encode())
    write_json(path, result.to_dict())
    return result.to_dict()


def _film(teacher: Policy, student: TorchPolicy, playable: PlayableTask, out: Path, options: QuickstartOptions) -> bool:
    """Film teacher and student; return whether the task can be filmed here, after telling why not."""

    def report(num_filmed: int) -> None:
        notify(options.callbacks, ProgressEvent("film", num_filmed, _FILMED_STEPS, "steps"))

    try:
        side_by_side(
            [("teacher", teacher), (f"student {student.name}", student)],
            playable,
            out,
            seed=options.seed + _EVALUATION_SEED,
            exploration_epsilon=playable.task.protocol.exploration_epsilon,
            max_steps=_FILMED_STEPS,
            on_step=report,
        )
    except StopRequestedError:
        raise KeyboardInterrupt("stopped; all but the film is made. The next call goes on.") from None
    except Exception as error:  # an environment draws with packages of its own, and all else is done
        notify(options.callbacks, MessageEvent(f"no film: {first_line(error)}"))
        return False
    return True
