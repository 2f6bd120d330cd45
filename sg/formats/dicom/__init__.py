"""DICOM: which series a file belongs to, and one series as a stack of slices."""

from sg.formats.dicom.instances import SUFFIXES, Instance, looks_like_dicom, read_instance
from sg.formats.dicom.pixels import planes
from sg.formats.dicom.stacks import Stack, read_stack

__all__ = ["SUFFIXES", "Instance", "Stack", "looks_like_dicom", "planes", "read_instance", "read_stack"]
