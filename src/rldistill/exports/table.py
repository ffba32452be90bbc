"""All formats of exports; another is a module with an `ExportFormat`, and its name here and in `options/export.py`."""

from collections.abc import Mapping

from rldistill.exports.formats import ExportFormat
from rldistill.exports.onnx_format import ONNX

FORMATS: Mapping[str, ExportFormat] = {own.name: own for own in (ONNX,)}
