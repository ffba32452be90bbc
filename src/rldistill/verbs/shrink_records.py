"""What a search for a small student found: sizes that were tried, looks at fresh episodes, and the verdict."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rldistill.evaluation.table import table_text
from rldistill.loading.named import PolicyLike, entry_of
from rldistill.policies import Policy, TorchPolicy
from rldistill.session.run_folder import provenance

STUDENT_FILE, RECORDS_FILE, STUDENTS_FOLDER = "student.safetensors", "shrink.json", "students"

# In place of −∞, which is no JSON.
NOTHING = -1e9


def share(value: float) -> str:
    """Return a share of the teacher's skill, or its bound, for people."""
    return "nothing" if value <= NOTHING else f"{value:.3f}"


def _percent(value: float) -> str:
    return "nothing" if value <= NOTHING else f"{100 * value:.1f} %"


@dataclass(frozen=True)
class Trial:
    """One size that was tried."""

    network: str  # its name
    num_parameters: int  # of the student
    retention: float  # mean over the choosing episodes
    bound: float  # one-sided 95 % lower bound there
    holds: bool  # whether the bound, or that of a proof, reaches what is to be kept
    num_updates: int  # gradient steps of the student in its file
    num_steps: int  # decisions that were played to learn from, of all times together
    seconds: float  # of training and looking, of all times together
    is_cut: bool  # whether time ended it, the last time, before its updates were done: more time may make it hold
    policy_hash: str  # of the student in its file

    @property
    def file(self) -> str:
        """Where the student lies in the folder."""
        return f"{STUDENTS_FOLDER}/{self.network.replace(':', '-')}.safetensors"


@dataclass(frozen=True)
class Proof:
    """A look at fresh episodes."""

    network: str  # of the student
    policy_hash: str  # of the student: a size may be trained on after it failed
    retention: float  # mean
    bound: float  # one-sided lower bound at `confidence`
    confidence: float  # 1 − 0.05 ÷ 2^k of the k-th look
    num_episodes: int  # fresh ones
    scores: tuple[float, float, float]  # means of student, teacher and random play
    holds: bool  # whether the bound reaches what is to be kept


@dataclass(frozen=True)
class Shrunk:
    """What a search found.

    Attributes:
        student: the smallest that holds, or the best where none does.
        keep: share of the teacher's skill that was asked for.
        held: whether it was proved to keep as much.
        verdict: one sentence.
        trials: sizes that were tried, in that order.
        proofs: looks at fresh episodes, in that order.
        out: folder.
    """

    student: TorchPolicy
    keep: float
    held: bool
    verdict: str
    trials: tuple[Trial, ...]
    proofs: tuple[Proof, ...]
    out: Path

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "verdict": self.verdict,
            "keep": self.keep,
            "held": self.held,
            "student": str(self.out / STUDENT_FILE),
            "policy_hash": self.student.hash,
            "trials": [asdict(trial) for trial in self.trials],
            "proofs": [asdict(proof) for proof in self.proofs],
        }

    def __str__(self) -> str:
        """Return the sizes as a table, by their last look at fresh episodes where there was one, and the verdict."""
        rows = [("network", "parameters", "retention", "bound", "steps", "seconds", "")]
        looks = {proof.policy_hash: proof for proof in sorted(self.proofs, key=lambda proof: proof.holds)}
        for trial in sorted(self.trials, key=lambda trial: trial.num_parameters):
            mark, seen = "holds" if trial.holds else "", looks.get(trial.policy_hash, trial)
            if isinstance(seen, Proof):
                mark = "proved" if seen.holds else "not proved"
            figures = (share(seen.retention), share(seen.bound), f"{trial.num_steps:,}", f"{trial.seconds:.0f}")
            rows.append((trial.network, f"{trial.num_parameters:,}", *figures, mark))
        return f"{table_text(rows)}\n\n{self.verdict}"


def provenance_of(trial: Trial, teacher: Policy, named: PolicyLike, *, num_steps: int) -> dict[str, Any]:
    """Return what the file of a size says of how it was made.

    Args:
        trial: of the size.
        teacher: that taught it.
        named: what the user named it by.
        num_steps: learned from, those of earlier sizes included.
    """
    return provenance("shrink") | {
        "teacher": entry_of(teacher, named).for_student,
        "chosen_by": "the choosing episodes",
        "student": trial.network,
        "num_updates": trial.num_updates,
        "num_steps": num_steps,
    }


def verdict(
    trial: Trial,
    proof: Proof | None,
    task: str,
    *,
    keep: float,
    teacher_size: int | None,
    time_helps: bool = True,
    may_look_again: bool = True,
) -> str:
    """Return what a search found, in one sentence; where nothing was proved, how good the best is and what would help.

    Args:
        trial: of the size that is delivered.
        proof: its look at fresh episodes, if there was one.
        task: by name.
        keep: share of the skill that was asked for.
        teacher_size: parameters of the teacher, if they are known.
        time_helps: whether more time finds anything to do: sizes to try, to train on or to prove.
        may_look_again: whether the search may go on: not all looks at fresh episodes are taken.
    """
    size = f"{trial.network}, {trial.num_parameters:,} parameters"
    if proof is None or not proof.holds:
        seen: Trial | Proof = trial if proof is None else proof
        episodes = "" if proof is None else f" in {proof.num_episodes} fresh episodes"
        way = (
            f"{'More time (--within) or' if time_helps else 'No size is left to try:'} a lower --keep may help with "
            "--resume; begun anew (--overwrite), data with more spread (--exploration-epsilon 0.1)."
        )
        if proof is not None and proof.retention >= keep:
            way = f"More episodes may prove it: --resume --num-episodes {4 * proof.num_episodes}, or a lower --keep."
        if not may_look_again:
            way = "All looks at fresh episodes are taken: --resume with a lower --keep, or --overwrite the search."
        return (
            f"Nothing was proved to keep {100 * keep:g} % on {task}; the best, {size}, keeps "
            f"{_percent(seen.retention)}{episodes} (bound {_percent(seen.bound)}). {way}"
        )
    times = "" if teacher_size is None else f", {teacher_size / trial.num_parameters:.3g} times fewer than its teacher"
    if teacher_size is not None and teacher_size <= trial.num_parameters:
        times = f" (its teacher has {teacher_size:,}: no size that is tried is smaller)"
    return (
        f"{size}{times}, keeps {100 * proof.retention:.1f} % of the skill on {task}: at least "
        f"{100 * proof.bound:.1f} % with 95 % confidence ({proof.num_episodes} fresh episodes; {100 * keep:g} % asked "
        "for)."
    )
