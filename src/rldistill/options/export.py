"""Options of `export`."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rldistill.options.declaration import Count, PathLike, PythonOnly
from rldistill.options.reading import Reading
from rldistill.options.shared import Environments, Machine, Told

if TYPE_CHECKING:
    from rldistill.envs import TaskLike
    from rldistill.loading.named import PolicyLike
else:  # The command line reads this file and must not wait for torch: of what may be named, it knows the texts.
    PolicyLike, TaskLike = Path, str


@dataclass(frozen=True)
class ExportOptions(Reading, Environments, Machine, Told):
    """Write a policy as others run it, with a contract of what goes in and out, and prove that it acts the same."""

    policy: Annotated[PolicyLike, PythonOnly()]
    """Policy: a student, a file of any library with weights, or a run folder."""
    out: PathLike
    """File to write, such as student.onnx. Beside it: student.onnx.contract.json and student.onnx.report.json."""
    _: KW_ONLY
    to: Literal["onnx", "torchscript", "torch-export", "sb3", "rsl-rl", "hub-folder"] | None = None
    """Format. Default: the one whose files end as --out does."""
    precision: Literal["float32", "float16", "int8"] = "float32"
    """Of the weights. int8 is calibrated on observations of --data."""
    probabilities: bool = False
    """Give the probabilities of all choices, too, beside the scores and the best one."""
    data: PathLike | None = None
    """Dataset folder. Default: what the student was distilled from, if it is still there."""
    task: Annotated[TaskLike | None, PythonOnly()] = None
    """Task to play policy and export on, which gives both a score; of several heads, the one to export."""
    env_kwargs: Mapping[str, Any] | None = None
    """Settings of the environment, such as {"frame_skip": 4}; on the command line a JSON object."""
    num_episodes: Count = 30
    """Episodes over which policy and export are compared, and scored."""
    names: PathLike | None = None
    """JSON file with the names of the numbers in observations and actions, for the contract: {"observation": ["angle",
    {"name": "velocity", "size": 3, "unit": "m/s"}], "action": ["torque"], "control_rate_hz": 50}."""
    device: str = "cpu"
    """Where the policy itself is run: cpu, cuda or auto. The export is run on the CPU."""
    overwrite: bool = False
    """Replace an earlier export."""
