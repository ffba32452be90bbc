"""What a search for a small student has tried and proved so far, and its file: `shrink --resume` goes on from that."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rldistill.errors import MismatchError, RldistillError, first_line
from rldistill.limits import JSON, read_file, read_json
from rldistill.policies import TorchPolicy, load_policy
from rldistill.storage import canonical_json, write_json
from rldistill.verbs.shrink_records import RECORDS_FILE, STUDENTS_FOLDER, Proof, Trial


class Tried:
    """The sizes that were tried, one trial for each, and the looks at fresh episodes.

    Args:
        out: folder of the search; nothing is written before the first trial.
        of: what the search is of, as JSON: it goes on with nothing else.

    Attributes:
        trials: in the order in which they ended.
        proofs: in the order of the looks.
        given_up: sizes that held, and failed on fresh episodes.
    """

    def __init__(self, out: Path, of: Mapping[str, Any]) -> None:
        self._out, self._of = out, of
        self.trials: list[Trial] = []
        self.proofs: list[Proof] = []
        self.given_up: set[str] = set()
        # Sizes that ended, in an earlier call, before their updates: they may hold after more of them.
        self._to_try_again: set[str] = set()

    @property
    def has_held(self) -> bool:
        """Whether any size held on the choosing episodes."""
        return any(trial.holds for trial in self.trials)

    @property
    def holding(self) -> list[Trial]:
        """Trials that held and have not failed on fresh episodes."""
        return [trial for trial in self.trials if trial.holds and trial.network not in self.given_up]

    @property
    def outcomes(self) -> dict[str, bool]:
        """By name, whether each size holds; those that more time may make hold are left out."""
        holding = {trial.network for trial in self.holding}
        names = [trial.network for trial in self.trials if trial.network not in self._to_try_again]
        return {name: name in holding for name in names}

    def closest(self, proof: Proof | None) -> tuple[Trial, Proof | None]:
        """Return the trial of a proof and that; without one the trial that came closest, of equals the smallest."""
        kept = {trial.policy_hash for trial in self.trials}
        looks = [each for each in self.proofs if each.policy_hash in kept]
        # Of each student its last look: the luckiest of several would flatter it.
        last = {each.policy_hash: each for each in looks}
        look = proof or max(last.values(), key=lambda each: each.bound, default=None)
        # The smallest that held and was not looked at, for want of time, is better than what is known to keep less.
        unseen = [trial for trial in self.holding if trial.policy_hash not in last]
        smallest = min(unseen, key=lambda trial: trial.num_parameters, default=None)
        if smallest is not None and look is not None and not look.holds and look.retention < smallest.bound:
            return smallest, None
        if look is not None:
            return next(trial for trial in self.trials if trial.network == look.network), look
        return max(self.trials, key=lambda trial: (trial.bound, trial.retention, -trial.num_parameters)), None

    def take_up(self, keep: float) -> list[str]:
        """Read what an earlier call tried, if it left anything; `keep` is the share that is to be kept.

        Returns:
            Names of sizes whose file is not the student that was recorded: they count as not tried.

        Raises:
            RldistillError: the file is damaged.
            MismatchError: that search was of something else.
        """
        path = self._out / RECORDS_FILE
        if not path.is_file():
            return []
        try:
            data = read_json(read_file(path, JSON.num_bytes))
            begun = data["of"]
            before = [Trial(**trial) for trial in data["trials"]]
            # All bounds of proofs hold together in 95 %: what is to be kept may be chosen by them.
            proofs = [Proof(**proof | {"scores": tuple(proof["scores"])}) for proof in data["proofs"]]
            self.proofs = [replace(proof, holds=proof.bound >= keep) for proof in proofs]
            proved = {proof.policy_hash for proof in self.proofs if proof.holds}
            # A proof of many episodes may show more than the choosing ones.
            self.trials = [replace(each, holds=each.bound >= keep or each.policy_hash in proved) for each in before]
        except (ValueError, TypeError, KeyError) as error:
            raise RldistillError(f"{path} is damaged: {first_line(error)}. Begin anew with --overwrite.") from error
        if canonical_json(begun) != canonical_json(self._of):
            raise MismatchError(
                f"--resume {self._out}: the search began with another teacher or task. Use the same, or --overwrite."
            )
        # A kill between the two leaves the file of a student whose record, and proofs, are of another.
        lost = [trial.network for trial in self.trials if not self._has_file_of(trial)]
        self.trials = [trial for trial in self.trials if trial.network not in lost]
        # What held less ended as soon as it did.
        failed = {trial.network for trial in self.trials if not trial.holds}
        self._to_try_again = {trial.network for trial in before if trial.is_cut or trial.holds} & failed
        # What kept too little in its last look is not looked at again; what kept enough may need more episodes.
        last = {proof.policy_hash: proof for proof in sorted(self.proofs, key=lambda proof: proof.holds)}
        refuted = {key for key, proof in last.items() if proof.retention < keep}
        self.given_up = {trial.network for trial in self.trials if trial.policy_hash in refuted}
        return lost

    def _has_file_of(self, trial: Trial) -> bool:
        try:
            return load_policy(self._out / trial.file).hash == trial.policy_hash
        except RldistillError:
            return False

    def record(self, trial: Trial, student: TorchPolicy) -> None:
        """Write a size and its record, in place of what it was before if that was no better."""
        (self._out / STUDENTS_FOLDER).mkdir(exist_ok=True)
        before = next((each for each in self.trials if each.network == trial.network), None)
        # What failed its proof has a bound that flatters it.
        if before is not None and before.bound > trial.bound and trial.network not in self.given_up:
            kept = replace(before, is_cut=trial.is_cut)
        else:
            student.save(self._out / trial.file)
            kept = replace(trial, policy_hash=student.hash)
        if before is not None:
            spent = before.num_steps + trial.num_steps, before.seconds + trial.seconds
            kept = replace(kept, num_steps=spent[0], seconds=spent[1])
        self.trials = [*(each for each in self.trials if each is not before), kept]
        self.given_up.discard(trial.network)
        self._to_try_again.discard(trial.network)
        self.write()

    def add_proof(self, proof: Proof) -> None:
        """Write a look at fresh episodes."""
        self.proofs.append(proof)
        self.write()

    def write(self, found: Mapping[str, Any] | None = None) -> None:
        """Write what was tried, with what was found once it is."""
        records = {"trials": [asdict(trial) for trial in self.trials], "proofs": [asdict(each) for each in self.proofs]}
        write_json(self._out / RECORDS_FILE, {**(found or records), "of": self._of})
