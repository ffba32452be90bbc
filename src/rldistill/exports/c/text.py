"""Pieces of C text: constants, comments, numbers and activations."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rldistill.errors import printable
from rldistill.networks.architecture import Activation

_WIDTH = 110
_TYPES: Mapping[torch.dtype, str] = {
    torch.float32: "float",
    torch.int8: "int8_t",
    torch.uint8: "uint8_t",
    torch.int16: "int16_t",
    torch.int32: "int32_t",
}

_ACTIVATIONS: Mapping[Activation, str] = {
    "relu": "x < 0.0f ? 0.0f : x",  # NaN stays NaN, and is seen in the outputs, as of all the others
    "elu": "x > 0.0f ? x : expf(x) - 1.0f",
    "celu": "x > 0.0f ? x : expf(x) - 1.0f",
    "leaky_relu": "x > 0.0f ? x : 0.01f * x",
    "sigmoid": "0.5f + 0.5f * tanh_of(0.5f * x)",
    "silu": "x * (0.5f + 0.5f * tanh_of(0.5f * x))",
    "gelu": "0.5f * x * (1.0f + erff(x * 0.70710678f))",
    "selu": "1.05070099f * (x > 0.0f ? x : 1.67326324f * (expf(x) - 1.0f))",
    "softplus": "x > 20.0f ? x : log1pf(expf(x))",
    "mish": "x > 20.0f ? x : x * (1.0f - 2.0f / (expf(x) * (expf(x) + 2.0f) + 2.0f))",
    "hardtanh": "x < -1.0f ? -1.0f : x > 1.0f ? 1.0f : x",
    "hardsigmoid": "x < -3.0f ? 0.0f : x > 3.0f ? 1.0f : x / 6.0f + 0.5f",
    "hardswish": "x < -3.0f ? 0.0f : x > 3.0f ? x : x * (x + 3.0f) / 6.0f",
    "softsign": "x / (1.0f + (x < 0.0f ? -x : x))",
    "relu6": "x < 0.0f ? 0.0f : x > 6.0f ? 6.0f : x",
    "identity": "x",
}


_OF_TANH = frozenset({"tanh", "sigmoid", "silu"})


@dataclass
class Definitions:
    """What stands before the functions of a file, each written once."""

    constants: list[str] = field(default_factory=list[str])  # their definitions
    helpers: dict[str, str] = field(default_factory=dict[str, str])  # functions that others call, by name
    num_bytes: int = 0  # that the constants take
    _names: dict[str, str] = field(default_factory=dict[str, str])

    def constant(self, name: str, values: Tensor, *, shared: bool = False) -> str:
        """Define an array of any number of dimensions, and return its name.

        Args:
            name: of the array, which is defined once.
            values: float32, or whole numbers of 8, 16 or 32 bits.
            shared: whether an equal array may stand for it.
        """
        values = values.detach()
        kind, sizes = _TYPES[values.dtype], "".join(f"[{size}]" for size in values.shape)
        definition = f"{sizes} = {_braces(values, 0)};\n"
        key = kind + definition if shared else name
        known = self._names.get(key)
        if known is None:
            self.constants.append(f"static const {kind} {name}{definition}")
            self.num_bytes += values.numel() * values.dtype.itemsize
            self._names[key] = known = name
        return known

    def activation(self, name: Activation, value: str) -> str:
        """Return the call of an activation, which is defined where it is not yet."""
        if name == "identity":
            return value
        if name in _OF_TANH:
            self.helpers["tanh"] = _TANH
        if name != "tanh":
            self.helpers[name] = function(f"static float {name}_of(float x)", [f"return {_ACTIVATIONS[name]};"])
        return f"{name}_of({value})"


def number(value: float) -> str:
    """Return a float32 constant that stands for exactly this number."""
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _braces(values: Tensor, depth: int) -> str:
    indent, inner = "    " * depth, "    " * (depth + 1)
    if values.dim() > 1:
        rows = ",\n".join(inner + _braces(part, depth + 1) for part in values)
        return f"{{\n{rows}\n{indent}}}"
    items = [number(value) if values.is_floating_point() else str(value) for value in values.tolist()]
    lines, line = list[str](), ""
    for item in items:
        if line and len(line) + len(item) > _WIDTH:
            lines.append(line.rstrip())
            line = ""
        line += f"{item}, "
    lines.append(line.rstrip(", "))
    if len(lines) == 1:
        return f"{{{lines[0]}}}"
    return "{\n" + "\n".join(inner + line for line in lines) + f"\n{indent}}}"


def identifier(text: str) -> str:
    """Return a name of C that is as near to a text as can be: `pong-net3` becomes `pong_net3`."""
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return name if name[:1].isalpha() else f"policy_{name}".rstrip("_")


def comment(lines: Iterable[str]) -> str:
    """Return a block comment; what would end it, or mean something else to a compiler, is taken apart."""
    taken_apart = {"*/": "* /", "/*": "/ *"}

    def safe(line: str) -> str:
        text = printable(line)
        for text_of_c, harmless in taken_apart.items():
            text = text.replace(text_of_c, harmless)
        text = re.sub(r"\?(?=\?)", "? ", text)  # trigraphs, also of three marks in a row
        return f" * {line[: len(line) - len(line.lstrip())]}{text}".rstrip()

    return "/*\n" + "\n".join(map(safe, lines)) + "\n */"


def function(signature: str, body: Sequence[str], *, about: str = "") -> str:
    """Return a function's text; lines of its body are indented by what they hold themselves and once more."""
    inner = "\n".join(f"    {line}" if line else "" for line in body)
    return (f"/* {about} */\n" if about else "") + f"{signature}\n{{\n{inner}\n}}\n"


def loop(variable: str, count: int | str, body: Sequence[str]) -> list[str]:
    """Return a loop from 0 to below `count`."""
    return [f"for (int {variable} = 0; {variable} < {count}; ++{variable}) {{", *(f"    {line}" for line in body), "}"]


# x · P(x²) ÷ Q(x²), fitted to tanh on [-9, 9] by least squares, reweighted until its largest relative error was least
# (2e-8; computed in float32, 4e-7). tanhf would take a third of the time of a 64x64 policy, or more: compilers cannot
# compute several of them at once.
_TANH = function(
    "static float tanh_of(float x)",
    [
        "const float y = x < -9.0f ? -9.0f : x > 9.0f ? 9.0f : x;",
        "const float z = y * y;",
        "float p = 1.33546552e-08f, q = 7.77655535e-07f;",
        "p = p * z + 2.06090764e-05f;",
        "q = q * z + 0.000328563417f;",
        "p = p * z + 0.0034955877f;",
        "q = q * z + 0.0258769805f;",
        "p = p * z + 0.133810252f;",
        "q = q * z + 0.467143408f;",
        "p = p * z + 0.999999979f;",
        "q = q * z + 1.0f;",
        "return y * p / q;",
    ],
    about="The hyperbolic tangent to 4e-7, of which a compiler can compute several at once.",
)
