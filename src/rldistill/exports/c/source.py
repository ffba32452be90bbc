"""The two files of a plan: constants, one function for each layer, and the two that a user calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from rldistill.exports.c.decisions import outputs_described, to_action, to_log_std, to_outputs
from rldistill.exports.c.layers import byte_layer, described, float_layer, loaded
from rldistill.exports.c.plan import Piece, Plan, PlannedCell, PlannedLayer
from rldistill.exports.c.quantize import QuantizedPlan
from rldistill.exports.c.state import BYTES, StateStruct, cell_function, stacked, state_numbers
from rldistill.exports.c.steps import LARGEST_OBSERVATION, statistics_of
from rldistill.exports.c.text import Definitions, comment, function, identifier, loop, number

_LARGEST = torch.finfo(torch.float32).max
_OF_MATH = ("expf(", "erff(", "log1pf(", "logf(", "sqrtf(")


@dataclass(frozen=True)
class CSource:
    """Two files, and what the compiled code keeps."""

    name: str  # what its functions begin with
    header: str  # text of the header
    source: str  # text of the source
    num_constant_bytes: int  # weights and tables, in flash
    num_memory_bytes: int  # activations, in RAM
    num_state_bytes: int  # of one state, in RAM, which the caller keeps
    functions_of_math: tuple[str, ...]  # of the C library that it calls


def write_c(file_name: str, plan: Plan | QuantizedPlan, contract: Sequence[str]) -> CSource:
    """Return the C of a plan.

    Args:
        file_name: of both files, without their endings.
        plan: in float32 or in whole numbers.
        contract: what goes in and what comes out, as lines of a comment.
    """
    return _Writer(file_name, plan).write(contract)


class _Writer:
    """Collects definitions, functions and calls while it walks over a plan in the order of its layers."""

    def __init__(self, file_name: str, plan: Plan | QuantizedPlan) -> None:
        self._quantized = plan if isinstance(plan, QuantizedPlan) else None
        self._plan = plan.plan if isinstance(plan, QuantizedPlan) else plan
        self._file, self._name = file_name, identifier(file_name)
        self._taken = "uint8_t" if self._plan.takes_bytes else "float"  # type of an observation's numbers
        self._kept = "float" if self._quantized is None else "uint8_t"  # type of all that layers give to each other
        self._definitions = Definitions()
        self._functions: list[str] = []
        self._calls: list[str] = []
        # What an observation becomes, alone or beside the features of its images.
        self._steps = None if self._quantized is None else self._quantized.observation
        self._prepared = self._kept if self._steps is None else "uint16_t"
        self._buffers: dict[str, tuple[str, int]] = {}  # types and sizes by name
        self._num_hidden = 0
        self._state = StateStruct(self._name)

    def write(self, contract: Sequence[str]) -> CSource:
        """Return both files."""
        own = self._decisions(*self._features())
        code = "\n".join([*self._definitions.helpers.values(), *self._functions, *own])
        of_math = tuple(name[:-1] for name in _OF_MATH if name in code)
        buffers = aligned(self._buffers)
        num_bytes = sum(BYTES[kind] * size for kind, size in buffers.values())
        sections = [
            comment([f"{self._file}.c: weights and layers. {self._file}.h says what goes in and what comes out."]),
            "",
            *(["#include <math.h>"] if of_math else []),
            "#include <stdint.h>",
            "",
            f'#include "{self._file}.h"',
            "",
            "/* A product and a sum in one step would round differently than everywhere else. */",
            "#ifdef __clang__",
            "#pragma STDC FP_CONTRACT OFF",
            "#endif",
            "",
            *self._definitions.constants,
        ]
        if self._buffers:
            sections += ["/* What layers give to each other. */"]
            lines = [f"    {kind} {name}[{size}];" for name, (kind, size) in buffers.items()]
            sections += ["static struct {", *lines, "} memory;", ""]
        source = "\n".join([*sections, code])
        header = self._header(contract, num_bytes)
        num_constant_bytes = self._definitions.num_bytes
        return CSource(self._name, header, source, num_constant_bytes, num_bytes, self._state.num_bytes, of_math)

    def _header(self, contract: Sequence[str], num_bytes: int) -> str:
        big, plan = self._name.upper(), self._plan
        arguments = f"{self._state.argument}const {self._taken} *observation, float"
        once = " Call one of the two for each observation." if self._state else ""
        sizes = {
            "OBSERVATION_SIZE": plan.observation_size,
            "ACTION_SIZE": plan.output.layout.action_size,
            "NUM_OUTPUTS": plan.output.num_outputs,
            "MEMORY_BYTES": num_bytes,
            "NUM_MACS": plan.num_macs,
        }
        if self._state:
            sizes["STATE_BYTES"] = self._state.num_bytes
        lines = [
            comment([*contract, "", "All decisions use one memory: make one at a time."]),
            "",
            f"#ifndef {big}_H",
            f"#define {big}_H",
            "",
            *(["#include <stdint.h>", ""] if plan.takes_bytes or "uint" in "".join(self._state.declaration) else []),
            *(f"#define {big}_{name} {size}" for name, size in sizes.items()),
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            *self._state.declaration,
            f"/* Gives the greedy action: of a box in the environment's units; choices are counted from 0.{once} */",
            f"void {self._name}_act({arguments} *action);",
            "",
            f"/* Gives the raw outputs: {outputs_described(plan)}.{once} */",
            f"void {self._name}_outputs({arguments} *outputs);",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "",
            "#endif",
            "",
        ]
        return "\n".join(lines)

    def _features(self) -> tuple[str, str]:
        """Write all that comes before the last layer, and return where that reads, and the type."""
        plan, base, kind, features = self._plan, "observation", self._taken, ""
        prepared = self._preparation()
        if prepared is not None:
            signature = f"static void prepare(const {kind} *restrict observation, {self._prepared} *restrict output)"
            about = "Brings an observation into the form that the first layer reads."
            self._functions.append(function(signature, loop("i", plan.observation_size, prepared), about=about))
            base, kind = self._buffer("prepared", self._prepared, plan.observation_size), self._prepared
            self._calls.append(f"prepare(observation, {base});")
        if plan.stack:
            self._calls += stacked(plan, self._steps, kind, base, self._state, self._definitions)
            base = "state->observations"
        observed = base, kind
        for piece in plan.pieces:
            features, kind = self._piece(piece, *observed)
        for cell in plan.cells:
            features, kind = self._cell(cell, features, kind)
        for layer in plan.hidden:
            features, kind = self._hidden_layer(layer, features, kind), self._kept
        return features, kind

    def _preparation(self) -> list[str] | None:
        """Return what is done to number `i` of an observation before all layers; None: nothing."""
        if self._quantized is None:
            return None if self._plan.normalization is None else self._normalization()
        if self._steps is None:
            return None
        low = self._definitions.constant("observation_low", self._steps.low)
        inverse = self._definitions.constant("observation_inverse_half_step", self._steps.inverse_half_step)
        most = 2.0 * LARGEST_OBSERVATION - 1.0
        return [
            # Statement by statement: no compiler may then fuse a product and a sum.
            f"float half_steps = {loaded('observation[i]', self._taken, 1.0)} - {low}[i];",
            f"half_steps *= {inverse}[i];",
            "half_steps = half_steps > 0.0f ? half_steps : 0.0f;",
            f"half_steps = half_steps < {number(most)} ? half_steps : {number(most)};",
            "output[i] = (uint16_t)(((int)half_steps + 1) / 2);",
        ]

    def _normalization(self) -> list[str]:
        mean, std, clip = statistics_of(self._plan)
        # The rest of the mean: features that are large beside their spread would lose their digits without it.
        rest = (mean - mean.float().double()).float()
        names = ("observation_mean", "observation_mean_rest", "observation_inverse_std", "observation_clip")
        values = (mean.float(), rest, (1 / std).float(), clip.clamp(max=_LARGEST).float())
        mean_name, rest_name, std_name, clip_name = map(self._definitions.constant, names, values)
        return [
            f"float value = {loaded('observation[i]', self._taken, 1.0)} - {mean_name}[i] - {rest_name}[i];",
            f"value *= {std_name}[i];",
            f"value = value < -{clip_name}[i] ? -{clip_name}[i] : value;",
            f"output[i] = value > {clip_name}[i] ? {clip_name}[i] : value;",
        ]

    def _piece(self, piece: Piece, base: str, kind: str) -> tuple[str, str]:
        """Write the layers of a piece, and return where the features of all pieces begin, and the type."""
        where = base if piece.first == 0 else f"{base} + {piece.first}"
        goes_on = self._quantized is not None or (kind == "float" and piece.scale == 1)
        is_alone = len(self._plan.pieces) == 1 and (goes_on or piece.layers)
        for layer in piece.layers if is_alone else piece.layers[:-1]:
            where = self._hidden_layer(layer, where, kind, piece if layer is piece.layers[0] else None)
            kind = self._kept
        if is_alone:
            return where, kind
        _, first = self._buffers.get("features", ("", 0))
        features = self._buffer("features", self._prepared, first + piece.num_features)
        target = features if first == 0 else f"{features} + {first}"
        if piece.layers:
            last = piece.layers[-1]
            self._layer(last, kind, self._prepared, piece if last is piece.layers[0] else None)
            self._calls.append(f"{last.name}({where}, {target});")
        else:
            value = f"{base}[{piece.first} + i]"
            value = value if self._quantized is not None else loaded(value, kind, piece.scale)
            self._calls += loop("i", piece.size, [f"{features}[{first} + i] = {value};"])
        return features, self._prepared

    def _hidden_layer(self, layer: PlannedLayer, where: str, kind: str, piece: Piece | None = None) -> str:
        """Write a layer and its call, and return where it puts what it gives: into two buffers in turn."""
        self._layer(layer, kind, self._kept, piece)
        target = self._buffer(("even", "odd")[self._num_hidden % 2], self._kept, layer.num_outputs)
        self._num_hidden += 1
        self._calls.append(f"{layer.name}({where}, {target});")
        return target

    def _buffer(self, name: str, kind: str, size: int) -> str:
        """Give a buffer room for so many numbers, and return how the functions call it."""
        _, known = self._buffers.get(name, ("", 0))
        self._buffers[name] = kind, max(known, size)
        return f"memory.{name}"

    def _cell(self, cell: PlannedCell, features: str, kind: str) -> tuple[str, str]:
        """Write a recurrent layer and its calls, and return where what it gives lies, and the type."""
        for layer, taken in ((cell.input, kind), (cell.recurrent, self._remembered)):
            self._layer(layer, taken, "float")
        given, recalled = (self._buffer(name, "float", cell.input.num_outputs) for name in ("given", "recalled"))
        self._functions.append(cell_function(cell, self._definitions))
        parts = [self._state.add("float", name, cell.size, "0.0f") for name in cell.state]
        self._calls.append(f"{cell.input.name}({features}, {given});")
        before = self._recalled(cell, parts[0])
        self._calls.append(f"{cell.recurrent.name}({before}, {recalled});")
        self._calls.append(f"{cell.name}({given}, {recalled}, {', '.join(parts)});")
        return self._recalled(cell, parts[0]), self._remembered

    @property
    def _remembered(self) -> str:
        """Type of a recurrent layer's state as other layers take it."""
        return "float" if self._quantized is None else "uint16_t"

    def _recalled(self, cell: PlannedCell, part: str) -> str:
        """Return where layers read a state, after bringing it into the form that they read."""
        if self._quantized is None:
            return part
        self._definitions.helpers["state_numbers"] = state_numbers()
        numbers = self._buffer("numbers", self._remembered, cell.size)
        self._calls.append(f"state_numbers({part}, {numbers}, {cell.size});")
        return numbers

    def _layer(self, layer: PlannedLayer, taken: str, given: str, piece: Piece | None = None) -> None:
        """Write the function of a layer."""
        if self._quantized is None:
            body = float_layer(layer, piece, taken, self._definitions)
        else:
            body = byte_layer(self._quantized.layers[layer.name], piece, self._definitions)
        signature = f"static void {layer.name}(const {taken} *restrict input, {given} *restrict output)"
        self._functions.append(function(signature, body, about=described(layer)))

    def _decisions(self, features: str, kind: str) -> list[str]:
        """Return the functions that a user calls, and what both begin with."""
        plan, count = self._plan, self._plan.output.num_outputs
        for layer in plan.last_layers:
            self._layer(layer, kind, "float")
        scores = [*self._calls, f"{plan.last.name}({features}, outputs);", *to_outputs(plan, self._definitions)]
        log_std = to_log_std(plan, self._feature_value(), self._definitions)
        decide = "decide(state, observation" if self._state else "decide(observation"
        outputs = [f"{decide}, outputs);"]
        if plan.last.num_outputs > count:  # of atoms, or α and β
            outputs = [f"float scores[{plan.last.num_outputs}];", f"{decide}, scores);"]
            outputs += loop("a", count, ["outputs[a] = scores[a];"])
        if any("features" in line for line in log_std):
            outputs.append(f"const {kind} *const features = {features};")
        act = [f"float outputs[{plan.last.num_outputs}];", f"{decide}, outputs);"]
        act += to_action(plan, self._definitions)
        about = "All layers up to the outputs by which a greedy decision is made."
        arguments = f"{self._state.argument}const {self._taken} *observation, float"
        return [
            *self._state.reset,
            function(f"static void decide({arguments} *outputs)", scores, about=about),
            function(f"void {self._name}_outputs({arguments} *outputs)", [*outputs, *log_std]),
            function(f"void {self._name}_act({arguments} *action)", act),
        ]

    def _feature_value(self) -> str:
        """Return the number that feature `f` stands for."""
        if self._quantized is None:
            return "features[f]"
        steps = self._quantized.features
        are_alike = len(steps.scale.unique()) == len(steps.offset.unique()) == 1
        if are_alike or self._plan.output.gaussian.std != "gsde":
            scale, offset = (number(float(part.flatten()[0])) for part in (steps.scale, steps.offset))
        else:  # numbers of the observation itself, or beside the features of its images
            scale = f"{self._definitions.constant('feature_scale', steps.scale.float())}[f]"
            offset = f"{self._definitions.constant('feature_offset', steps.offset.float())}[f]"
        return f"((float)features[f] * {scale} + {offset})"


def aligned(buffers: Mapping[str, tuple[str, int]]) -> dict[str, tuple[str, int]]:
    """Return buffers, types and sizes by name, so that a compiler puts nothing between or behind them."""
    largest = max((BYTES[kind] for kind, _ in buffers.values()), default=1)
    ordered = sorted(buffers.items(), key=lambda item: -BYTES[item[1][0]])
    return {name: (kind, -(-BYTES[kind] * size // largest) * largest // BYTES[kind]) for name, (kind, size) in ordered}
