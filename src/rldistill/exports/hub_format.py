"""A folder for a model hub: a model card whose metadata hubs read, the policy file, ONNX, and the contract.

Nothing is uploaded: `huggingface-cli upload` or `git push` takes the folder as it is.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rldistill.exports import onnx_format
from rldistill.exports.contract import Score
from rldistill.exports.formats import Export, ExportFormat, Opened
from rldistill.policies import load_policy

POLICY, ONNX_FILE, CONTRACT, CARD = "policy.safetensors", "policy.onnx", "contract.json", "README.md"


def _write(export: Export, path: Path) -> None:
    path.mkdir()
    (export.whole or export.policy).save(path / POLICY)
    onnx_format.write(export, path / ONNX_FILE)
    (path / CONTRACT).write_text(json.dumps(export.contract, indent=2, allow_nan=False) + "\n")
    (path / CARD).write_text("\n".join([*_metadata(export), *_text(export)]) + "\n")


def _metadata(export: Export) -> Iterator[str]:
    """Yield the front matter, in YAML; every text is quoted as JSON, which YAML reads."""
    task, name = json.dumps(export.policy.tasks[0].name), json.dumps(export.policy.name)
    yield "---"
    yield "library_name: rldistill"
    yield f"license: {json.dumps(export.license or 'unknown')}"  # the weights are made of the teacher's
    yield "pipeline_tag: reinforcement-learning"
    yield f"tags: [reinforcement-learning, deep-reinforcement-learning, policy-distillation, {task}]"
    if export.score is not None:
        yield "model-index:"
        yield f"- name: {name}"
        yield "  results:"
        yield "  - task: {type: reinforcement-learning, name: reinforcement-learning}"
        played = json.dumps(_played(export))
        yield f"    dataset: {{name: {played}, type: {played}}}"
        yield "    metrics:"
        name = json.dumps(_score_name(export.score))
        yield f"    - {{type: mean_reward, name: {name}, value: {export.score.mean:.6g}}}"
        if (kept := export.contract["retention"]) is not None:
            said = f"retention of the teacher's skill, 95 % interval {_interval(kept['interval'])}"
            yield f"    - {{type: retention, name: {json.dumps(said)}, value: {kept['value']:.4g}}}"
    yield "---"
    yield ""


def _played(export: Export) -> str:
    return export.played or export.policy.tasks[0].name


def _score_name(score: Score) -> str:
    return f"mean return over {score.num_episodes} episodes, 95 % interval {_interval(score.interval)}"


def _interval(bounds: Any) -> str:  # noqa: ANN401 (two numbers, or None)
    return "not known" if bounds is None else f"{bounds[0]:.4g} to {bounds[1]:.4g}"


def _text(export: Export) -> Iterator[str]:
    policy, contract = export.policy, export.contract
    yield f"# {policy.name}"
    yield ""
    how = f"with {policy.num_parameters:,} parameters, {policy.behaviour}"
    yield f"Plays `{policy.tasks[0].name}` {how}. SHA-256 `{contract['policy']['hash']}`."
    yield ""
    if export.score is not None:
        yield f"Score on `{_played(export)}`: {export.score.mean:.4g} ({_score_name(export.score)})."
        yield ""
    yield "| file | what it is |"
    yield "|---|---|"
    yield f"| `{POLICY}` | weights and all it takes to play: `rldistill.load_policy` |"
    rounded = "" if export.precision == "float32" else f", weights in {export.precision}"
    yield f"| `{ONNX_FILE}` | the same with normalisation and action mapping{rounded}, for onnxruntime |"
    yield f"| `{CONTRACT}` | what goes in and what comes out, term by term |"
    yield ""
    for side in ("observation", "action"):
        yield f"{side.capitalize()}: " + ", ".join(
            f"`{term['name']}` {term['slice']}" for term in contract[side]["terms"]
        )
        yield ""


def _open(export: Export, path: Path) -> Opened:
    load_policy(path / POLICY)  # checked by its own checksum
    return onnx_format.open_onnx(export, path / ONNX_FILE)


HUB_FOLDER = ExportFormat(
    "hub-folder",
    "",
    ("float32", "float16", "int8"),
    _write,
    _open,
    contents=(POLICY, ONNX_FILE, CONTRACT, CARD),
    check_packages=onnx_format.check_packages,
)
