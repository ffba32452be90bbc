"""The state of a policy in C: a struct of which its user keeps one for each robot, and what works on it."""

import torch

from rldistill.exports.c.plan import Plan, PlannedCell
from rldistill.exports.c.steps import STATE_STEPS, ObservationSteps, statistics_of
from rldistill.exports.c.text import Definitions, function, loop, number

# Fields of the struct begin at multiples of it.
_ALIGNMENT = 4
BYTES = {"float": 4, "uint8_t": 1, "uint16_t": 2}
"""What one number of a type takes."""


class StateStruct:
    """Fields of the struct, in order.

    Attributes:
        name: what the functions of the policy begin with.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._fields: list[str] = []
        self._begins: list[str] = []
        self.num_bytes = 0

    def __bool__(self) -> bool:
        """Return whether the policy remembers anything."""
        return bool(self._fields)

    def add(self, kind: str, name: str, size: int, initial: str) -> str:
        """Add an array, and what its number `i` is when an episode begins; returns how the functions call it."""
        self._fields.append(f"    {kind} {name}[{size}];")
        self._begins += loop("i", size, [f"state->{name}[i] = {initial};"])
        self.num_bytes += -(-BYTES[kind] * size // _ALIGNMENT) * _ALIGNMENT
        return f"state->{name}"

    @property
    def argument(self) -> str:
        """What stands first among the arguments of a function; empty without a state."""
        return f"{self.name}_state *state, " if self else ""

    @property
    def declaration(self) -> list[str]:
        """The lines of the header; none without a state."""
        if not self:
            return []
        return [
            "/* What the policy remembers of an episode: keep one for each robot. A decision changes it. */",
            "typedef struct {",
            *self._fields,
            f"}} {self.name}_state;",
            "",
            "/* Begins an episode: call it before the first decision, and whenever the environment is reset. */",
            f"void {self.name}_reset({self.name}_state *state);",
            "",
        ]

    @property
    def reset(self) -> list[str]:
        """The function that begins an episode; none without a state."""
        return [function(f"void {self.name}_reset({self.name}_state *state)", self._begins)] if self else []


def stacked(
    plan: Plan, steps: ObservationSteps | None, kind: str, newest: str, state: StateStruct, definitions: Definitions
) -> list[str]:
    """Add earlier observations to a state, and return the calls that put the newest behind them.

    They are moved by one place for each decision, rather than written in a ring: the first layer multiplies each of
    them by many weights, and reads them in their order.

    Args:
        plan: of a stack.
        steps: how floats become whole numbers; None: they do not.
        kind: type of an observation's numbers as the first layer takes them.
        newest: where the newest observation lies.
        state: gets them.
        definitions: gets what stands before an episode's first observation.
    """
    size, initial = plan.observation_size, "0"
    if steps is not None:
        mean, _, _ = statistics_of(plan)
        zeros = steps.encode(mean[None])[0].to(torch.int16)
        initial = f"(uint16_t){definitions.constant('observation_zero', zeros)}[i % {size}]"
    place = state.add(kind, "observations", plan.stack * size, f"{initial}{'.0f' if kind == 'float' else ''}")
    earlier = (plan.stack - 1) * size
    return [
        *loop("i", earlier, [f"{place}[i] = {place}[i + {size}];"]),
        *loop("i", size, [f"{place}[{earlier} + i] = {newest}[i];"]),
    ]


def cell_function(cell: PlannedCell, definitions: Definitions) -> str:
    """Return the function that turns the sums of both layers of a cell into its next state."""
    size = cell.size
    gates = [f"given[{place} + i] + recalled[{place} + i]" for place in range(0, 4 * size, size)]

    def sigmoid(value: str) -> str:
        return definitions.activation("sigmoid", value)

    def tanh(value: str) -> str:
        return definitions.activation("tanh", value)

    if cell.kind == "gru":
        candidate = f"given[{2 * size} + i] + {sigmoid(gates[0])} * recalled[{2 * size} + i]"
        arguments, lines = "", [
            f"const float update = {sigmoid(gates[1])};",
            f"const float candidate = {tanh(candidate)};",
            "h[i] = (1.0f - update) * candidate + update * h[i];",
        ]  # fmt: skip
    else:
        arguments, lines = ", float *restrict c", [
            f"const float kept = {sigmoid(gates[1])} * c[i];",
            f"c[i] = kept + {sigmoid(gates[0])} * {tanh(gates[2])};",
            f"h[i] = {sigmoid(gates[3])} * {tanh('c[i]')};",
        ]  # fmt: skip
    signature = (
        f"static void {cell.name}(const float *restrict given, const float *restrict recalled, float *restrict h"
        f"{arguments})"
    )
    about = f"The next state of {'a GRU' if cell.kind == 'gru' else 'an LSTM'} of {size} units."
    return function(signature, loop("i", size, lines), about=about)


def state_numbers() -> str:
    """Return the function that gives a recurrent layer's state as whole numbers (`steps.STATE_STEPS`)."""
    half = number(float(1 / STATE_STEPS.scale))
    return function(
        "static void state_numbers(const float *restrict h, uint16_t *restrict output, int size)",
        # Statement by statement: no compiler may then fuse a product and a sum.
        loop("i", "size", ["float steps = h[i] + 1.0f;", f"steps *= {half};", "output[i] = (uint16_t)(steps + 0.5f);"]),
        about="What was remembered, from [-1, 1], in 12 bits.",
    )
