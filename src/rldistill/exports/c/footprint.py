"""What the C of a policy takes on a microcontroller, before it is written or compiled."""

from collections.abc import Mapping
from dataclasses import dataclass

from rldistill.errors import RldistillError
from rldistill.exports.c.plan import Plan
from rldistill.exports.c.quantize import QuantizedPlan
from rldistill.exports.c.source import CSource

# Bytes of code for a Cortex-M4 at -O2, from above: the largest of 50 networks that were compiled, and a tenth.
_OWN_CODE, _FULLY_CONNECTED, _CONVOLUTION, _CELL = 500, 120, 260, 200
_CODE_OF_MATH: Mapping[str, int] = {"expf": 750, "erff": 2700, "log1pf": 800, "logf": 800, "sqrtf": 100}
# Of nested calls, from above.
_STACK_FRAMES = 256
_KIBI = 1024


@dataclass(frozen=True)
class Footprint:
    """What one policy takes."""

    flash_bytes: int  # constants, exactly, and code, from above
    ram_bytes: int  # activations and one state, exactly, and the stack, from above; without observation and action
    num_macs: int  # multiply-adds of a decision, without biases

    @classmethod
    def of(cls, plan: Plan | QuantizedPlan, source: CSource) -> "Footprint":
        """Return what the C of a plan takes."""
        is_int8 = isinstance(plan, QuantizedPlan)
        planned = plan.plan if is_int8 else plan
        is_convolution = [layer.is_convolution for layer in planned.layers]
        code = _OWN_CODE + sum(_CONVOLUTION if own else _FULLY_CONNECTED for own in is_convolution)
        code += _CELL * len(planned.cells)
        code += sum(_CODE_OF_MATH[name] for name in source.functions_of_math)
        # Sums of a convolution of floats lie on the stack, all channels of a pixel; so do a decision's outputs.
        sums = [] if is_int8 else [len(layer.weight) for layer in planned.layers if layer.is_convolution]
        stack = _STACK_FRAMES + 4 * (max(sums, default=0) + planned.last.num_outputs)
        ram = source.num_memory_bytes + source.num_state_bytes + stack
        return cls(source.num_constant_bytes + code, ram, planned.num_macs)

    def check_fits(self, most: Mapping[str, int]) -> None:
        """Check that it keeps within `flash` and `ram`, as far as they are given, in bytes.

        Raises:
            RldistillError: it does not.
        """
        needs = {"flash": self.flash_bytes, "ram": self.ram_bytes}
        over = [f"{name} {_kibi(needs[name])} of {_kibi(size)}" for name, size in most.items() if needs[name] > size]
        if over:
            raise RldistillError(
                f"--fits: the policy does not fit: it needs {' and '.join(over)}. Nothing was written. Use --precision "
                "int8, or distil it into a smaller network: rldistill shrink."
            )

    def __str__(self) -> str:
        """Return a line for people."""
        return (
            f"flash {_kibi(self.flash_bytes)}, RAM {_kibi(self.ram_bytes)} without the observation, "
            f"{self.num_macs:,} multiply-adds for a decision (code and stack estimated from above, for a Cortex-M4)"
        )


def _kibi(num_bytes: int) -> str:
    return f"{num_bytes / _KIBI:.1f}k"
