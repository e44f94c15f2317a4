"""Data: samples, converters, and load → process → split → export from a YAML.

Importing this brings in neither pyarrow nor pandas nor torch; what needs them imports them when it runs.
"""

from rm_gallery.core.data.config import DatasetConfig, ExportConfig, ProcessConfig, SourceConfig, load_config
from rm_gallery.core.data.converters import (
    BadRow,
    Converter,
    category,
    converter_names,
    get_converter,
    register_converter,
    text,
    whole_number,
)
from rm_gallery.core.data.describe import describe_files
from rm_gallery.core.data.pipeline import convert_dataset
from rm_gallery.core.data.report import ConversionReport
from rm_gallery.core.data.samples import Message, Pair, Sample, conversation, conversation_text

__all__ = [
    "BadRow",
    "ConversionReport",
    "Converter",
    "DatasetConfig",
    "ExportConfig",
    "Message",
    "Pair",
    "ProcessConfig",
    "Sample",
    "SourceConfig",
    "category",
    "conversation",
    "conversation_text",
    "convert_dataset",
    "converter_names",
    "describe_files",
    "get_converter",
    "load_config",
    "register_converter",
    "text",
    "whole_number",
]
