"""Options of `export`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Literal

from rldistill.errors import UsageError
from rldistill.options.declaration import Count, PathLike, PythonOnly
from rldistill.options.reading import Reading
from rldistill.options.shared import Environments, Machine, PolicyLike, TaskLike, Told

_MOST = re.compile(r"(flash|ram)=([1-9]\d{0,8})([kKmM]?)")


@dataclass(frozen=True)
class ExportOptions(Reading, Environments, Machine, Told):
    """Export a policy to another format, with a contract of its inputs and outputs, and check that it acts the same."""

    policy: Annotated[PolicyLike, PythonOnly()]
    """Policy: a student, a file of any library with weights, or a run folder."""
    out: PathLike
    """File to write, such as student.onnx. Beside it: student.onnx.contract.json and student.onnx.report.json."""
    _: KW_ONLY
    to: Literal["onnx", "c", "torchscript", "torch-export", "sb3", "rsl-rl", "hub-folder"] | None = None
    """Format. Default: the one whose files end as --out does."""
    precision: Literal["float32", "float16", "int8"] = "float32"
    """Number format of the weights. int8 is calibrated on observations of --data."""
    quantization_aware: bool = False
    """int8: train a copy on observations of --data first, with the rounding in the loop, to act as the policy does."""
    fits: str | None = None
    """C: most flash and RAM that it may take, such as flash=64k,ram=8k; a policy that needs more is not written."""
    probabilities: bool = False
    """Give the probabilities of all discrete actions, too, beside the scores and the best one."""
    data: PathLike | None = None
    """Dataset folder. Default: what the student's run folder says that it was distilled from, if it is still
    there."""
    task: Annotated[TaskLike | None, PythonOnly()] = None
    """Task to play policy and export on, which gives both a score; of several heads, the one to export."""
    env_kwargs: Mapping[str, Any] | None = None
    """Settings of the environment, such as {"frame_skip": 4}; on the command line a JSON object."""
    num_episodes: Count = 30
    """Episodes over which policy and export are compared, and scored."""
    names: PathLike | Mapping[str, Sequence[int]] | None = None
    """Names for the contract: of spans of the observation, in Python {"velocity": (0, 3), "rest": (3,)}, on the command
    line velocity=0:3,rest=3:, or a JSON file of all numbers in observations and actions: {"observation": ["angle",
    {"name": "velocity", "size": 3, "unit": "m/s"}], "action": ["torque"], "control_rate_hz": 50}. Default: those that
    the environment, or the student's file, gives."""
    license: str | None = None
    """hub-folder: licence of the teacher, such as apache-2.0, for the card. Default: unknown."""
    device: str = "cpu"
    """Where the policy itself is run: cpu, cuda or auto. The export is run on the CPU."""
    overwrite: bool = False
    """Replace an earlier export."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantization_aware and self.precision != "int8":
            raise UsageError(f"--quantization-aware is for --precision int8, got {self.precision}.")
        _ = self.most_bytes  # refuses what cannot be read

    @property
    def most_bytes(self) -> dict[str, int]:
        """Bytes at most, of `flash` and `ram`, as far as `fits` says.

        Raises:
            UsageError: it is another text.
        """
        most: dict[str, int] = {}
        for part in () if self.fits is None else self.fits.split(","):
            found = _MOST.fullmatch(part.strip())
            if found is None or found[1] in most:
                raise UsageError(f"--fits: got {self.fits!r}, expected flash=64k, ram=8k or both with a comma between.")
            most[found[1]] = int(found[2]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[found[3].lower()]
        return most
