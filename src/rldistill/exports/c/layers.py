"""The C of single layers: the bodies of their functions, which read `input` and write `output`.

Layers of floats add one input to all outputs at a time: a compiler may then compute several outputs at once without
changing the order of a sum. Layers of bytes add up one output at a time: their sums have no order, and need no memory.
"""

from collections.abc import Sequence

import torch

from rldistill.exports.c.plan import Piece, PlannedLayer
from rldistill.exports.c.quantize import QuantizedLayer
from rldistill.exports.c.text import Definitions, function, loop, number

_RESCALED = function(
    "static int32_t rescaled(int32_t sum, int32_t multiplier, int64_t addend, int shift, int32_t top)",
    [
        "const int64_t steps = (int64_t)sum * multiplier + addend;",
        "if (steps < 0) {",
        "    return 0;",
        "}",
        "return (steps >> shift) < top ? (int32_t)(steps >> shift) : top;",
    ],
    about="(sum * multiplier + addend) / 2^shift, rounded downwards (the addend holds a half) and kept in [0, top].",
)
_LAYER_NORM = function(
    "static void layer_norm(float *values, int size, int per_weight, const float *weight, const float *bias, "
    "float epsilon)",
    [
        "float mean = 0.0f, variance = 0.0f, inverse_std;",
        *loop("i", "size", ["mean += values[i];"]),
        "mean /= (float)size;",
        *loop("i", "size", ["variance += (values[i] - mean) * (values[i] - mean);"]),
        "inverse_std = 1.0f / sqrtf(variance / (float)size + epsilon);",
        *loop(
            "i",
            "size",
            ["values[i] = (values[i] - mean) * inverse_std * weight[i / per_weight] + bias[i / per_weight];"],
        ),
    ],
    about="Mean 0 and variance 1 over all values, then a weight and a bias for every per_weight of them.",
)


def float_layer(layer: PlannedLayer, piece: Piece | None, taken: str, definitions: Definitions) -> list[str]:
    """Return the body of a layer in float32 that reads type `taken`, of a `piece` where it is its first layer."""
    # Inputs outermost, outputs innermost: [I][O], or [C][k][k][O].
    weight = definitions.constant(f"{layer.name}_weight", layer.weight.movedim(0, -1).contiguous())
    bias = definitions.constant(f"{layer.name}_bias", layer.bias)
    scale, count = 1.0 if piece is None else piece.scale, len(layer.weight)
    # A norm stands between the sums and the activation, and waits for all of them.
    activation = layer.activation if layer.norm is None else "identity"
    if layer.is_convolution:
        value = f"const float value = {loaded(f'input[{_pixel(layer, piece)}]', taken, scale)};"
        sums = [f"float sums[{count}];", *loop("o", count, [f"sums[o] = {bias}[o];"])]
        sums += _over_kernel(layer, [value, *loop("o", count, [f"sums[o] += {weight}[c][ky][kx][o] * value;"])])
        sums += loop("o", count, [f"{_output(layer)} = {definitions.activation(activation, 'sums[o]')};"])
        lines = _over_image(layer, sums)
    else:
        value = f"const float value = {loaded('input[i]', taken, scale)};"
        lines = loop("o", count, [f"output[o] = {bias}[o];"])
        sums = [value, *loop("o", count, [f"output[o] += {weight}[i][o] * value;"])]
        lines += loop("i", layer.input_shape[0], sums)
        if activation != "identity":
            lines += loop("o", count, [f"output[o] = {definitions.activation(activation, 'output[o]')};"])
    return lines + _norm(layer, definitions)


def byte_layer(own: QuantizedLayer, piece: Piece | None, definitions: Definitions) -> list[str]:
    """Return the body of a layer in whole numbers."""
    layer = own.layer
    weight = definitions.constant(f"{layer.name}_weight", own.weight.to(torch.int8))
    bias = definitions.constant(f"{layer.name}_bias", own.bias.to(torch.int32))
    given = _given(own, definitions)
    if layer.is_convolution:
        add = f"sum += (int32_t){weight}[o][c][ky][kx] * (int32_t)input[{_pixel(layer, piece)}];"
        sums = [f"int32_t sum = {bias}[o];", *_over_kernel(layer, [add]), f"{_output(layer)} = {given};"]
        return loop("o", len(layer.weight), _over_image(layer, sums))
    add = f"sum += (int32_t){weight}[o][i] * (int32_t)input[i];"
    sums = [f"int32_t sum = {bias}[o];", *loop("i", layer.input_shape[0], [add]), f"output[o] = {given};"]
    return loop("o", len(layer.weight), sums)


def described(layer: PlannedLayer) -> str:
    """Return what a layer is, for the comment above it."""
    taken, given = (" x ".join(map(str, shape)) for shape in (layer.input_shape, layer.output_shape))
    if layer.is_convolution:
        kernel = layer.weight.shape[2]
        kind = f"Convolution of {kernel} x {kernel}, stride {layer.stride}"
    else:
        kind = "Fully connected"
    norm = "" if layer.norm is None else ", layer norm"
    return f"{kind}: {taken} to {given}{norm}{'' if layer.activation == 'identity' else f', {layer.activation}'}."


def loaded(value: str, taken: str, scale: float) -> str:
    """Return a number that is read as a float, times a factor."""
    as_float = value if taken == "float" else f"(float){value}"
    return as_float if scale == 1 else f"{as_float} * {number(scale)}"


def _given(own: QuantizedLayer, definitions: Definitions) -> str:
    """Return what becomes of a sum."""
    name, rescaling = own.layer.name, own.rescaling
    if rescaling is None:
        return f"(float)sum * {definitions.constant(f'{name}_scale', own.scale)}[o]"
    definitions.helpers["rescaled"] = _RESCALED
    multiplier = definitions.constant(f"{name}_multiplier", rescaling.multiplier.to(torch.int32))
    result = f"rescaled(sum, {multiplier}[o], INT64_C({rescaling.addend}), {rescaling.shift}, {rescaling.top})"
    if rescaling.table is None:
        return f"(uint8_t){result}"
    return f"{definitions.constant(f'{name}_table', rescaling.table, shared=True)}[{result}]"


def _norm(layer: PlannedLayer, definitions: Definitions) -> list[str]:
    if layer.norm is None:
        return []
    definitions.helpers["layer_norm"] = _LAYER_NORM
    size, weight = layer.num_outputs, layer.norm.weight.flatten()
    names = [definitions.constant(f"{layer.name}_norm_weight", weight)]
    names.append(definitions.constant(f"{layer.name}_norm_bias", layer.norm.bias.flatten()))
    call = f"layer_norm(output, {size}, {size // len(weight)}, {', '.join(names)}, {number(layer.norm.eps)});"
    if layer.activation == "identity":
        return [call]
    return [call, *loop("i", size, [f"output[i] = {definitions.activation(layer.activation, 'output[i]')};"])]


def _over_image(layer: PlannedLayer, body: Sequence[str]) -> list[str]:
    _, height, width = layer.output_shape
    return loop("y", height, loop("x", width, body))


def _over_kernel(layer: PlannedLayer, body: Sequence[str]) -> list[str]:
    _, channels, height, width = layer.weight.shape
    return loop("c", channels, loop("ky", height, loop("kx", width, body)))


def _output(layer: PlannedLayer) -> str:
    _, height, width = layer.output_shape
    return f"output[(o * {height} + y) * {width} + x]"


def _pixel(layer: PlannedLayer, piece: Piece | None) -> str:
    """Return the place of a pixel; an observation's is where the environment has it."""
    row, column = (
        (f"({layer.stride} * y + ky)", f"({layer.stride} * x + kx)") if layer.stride > 1 else ("(y + ky)", "(x + kx)")
    )
    _, height, width = layer.input_shape
    shape = layer.input_shape if piece is None else piece.shape
    if len(shape) == 4:  # a stack of colour frames [S, H, W, 3]
        colours = shape[3]
        return f"((c / {colours} * {height} + {row}) * {width} + {column}) * {colours} + c % {colours}"
    if shape != layer.input_shape:  # [H, W, C]
        return f"({row} * {width} + {column}) * {shape[2]} + c"
    return f"(c * {height} + {row}) * {width} + {column}"
