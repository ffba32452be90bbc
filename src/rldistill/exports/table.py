"""All formats of exports; another is a module with an `ExportFormat`, and its name here and in `options/export.py`."""

from collections.abc import Mapping

from rldistill.exports.c_format import C
from rldistill.exports.formats import ExportFormat
from rldistill.exports.hub_format import HUB_FOLDER
from rldistill.exports.onnx_format import ONNX
from rldistill.exports.rsl_rl_format import RSL_RL
from rldistill.exports.sb3_format import SB3
from rldistill.exports.torch_formats import TORCH_EXPORT, TORCHSCRIPT

FORMATS: Mapping[str, ExportFormat] = {
    own.name: own for own in (ONNX, C, TORCHSCRIPT, TORCH_EXPORT, SB3, RSL_RL, HUB_FOLDER)
}
"""Where several have files of one ending, the first is meant unless `--to` names another."""
