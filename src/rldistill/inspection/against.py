"""How two contracts differ: of exports, of policies, or the JSON itself; whichever a path is."""

import contextlib
from pathlib import Path
from typing import Any

from rldistill.adapters.load import detect_kind
from rldistill.errors import RldistillError, reading_file
from rldistill.exports.contract import check_contract, differences, make_contract
from rldistill.exports.names import Names, Term
from rldistill.exports.onnx_format import contract_in
from rldistill.limits import JSON, read_file, read_json
from rldistill.loading.named import PolicyFile, as_policy
from rldistill.options.reading import Reading
from rldistill.policies import TorchPolicy

_CONTRACT_FILE = "contract.json"


def compare_contracts(ours: Path, theirs: Path, reading: Reading, task: str | None) -> dict[str, Any]:
    """Return what two files say differently of what goes in and comes out, as plain JSON data.

    Each is an export, a policy file, a run folder, or a contract. `reading` and `task` are what the user says of policy
    files that do not say it themselves; of a policy of several heads, `task` is the one that is meant.

    Raises:
        RldistillError: one of them is none of these, or holds a contract that cannot be read.
    """
    found = [contract_of(path, reading, task) for path in (ours, theirs)]
    stated = next((own for own in found if isinstance(own, dict)), None)
    mine, other = (own if isinstance(own, dict) else _contract_of(own, stated) for own in found)
    return {"ours": str(ours), "theirs": str(theirs), "differences": differences(mine, other)}


def contract_of(path: Path, reading: Reading, task: str | None) -> dict[str, Any] | TorchPolicy:
    """Return the contract that a path is, or that lies inside an export, or beside it; else the policy of its file."""
    path = path.absolute() if path.name else path.resolve()
    file = path / _CONTRACT_FILE if (path / _CONTRACT_FILE).is_file() else path
    if file.suffix == ".json":
        return _read(file)
    if file.is_file() and file.suffix == ".onnx" and (inside := contract_in(file)) is not None:
        return inside
    beside = path.with_name(f"{path.name}.contract.json")
    if beside.is_file():
        return _read(beside)
    policy = as_policy(PolicyFile(path, reading), device="cpu", task=task)
    if not isinstance(policy, TorchPolicy):
        raise RldistillError(
            f"{path} is a program ({detect_kind(path)}) without a contract in it or beside it ({beside.name}): what "
            "its numbers mean cannot be told."
        )
    names = [own.name for own in policy.tasks]
    return policy.for_task(task) if task in names else policy


def _contract_of(policy: TorchPolicy, other: dict[str, Any] | None) -> dict[str, Any]:
    """Return the contract of a policy, whose file names no numbers, by the names that the other contract has."""
    with contextlib.suppress(LookupError, TypeError, ValueError, RldistillError):  # it is of other numbers, or damaged
        if other is not None and policy.spec.sight is None:
            sides = (other[side]["terms"] for side in ("observation", "action"))
            observation, action = (
                tuple(Term(own["name"], own["slice"][1] - own["slice"][0]) for own in side) for side in sides
            )
            return make_contract(policy, Names(observation, action), None)
    return make_contract(policy, Names(), None)


def _read(path: Path) -> dict[str, Any]:
    with reading_file(f"Contract {path}", RldistillError):
        return check_contract(f"Contract {path}", read_json(read_file(path, JSON.num_bytes)))
