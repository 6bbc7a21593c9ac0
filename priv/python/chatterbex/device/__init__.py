"""Devices: what this machine has, what works, and how a model gets there and back in one piece.

Importing this package does not import PyTorch, so a machine without it can say so.

- ``prepare_environment``: variables that PyTorch reads as it is imported.
- ``detect``, ``devices``: what there is. ``probe``: what works. ``choose``: what to use.
- ``Placement``: moves all components of a model, or none.
- ``Runtime``: the above for one model, with the retreat to the CPU when its device fails.
"""

from __future__ import annotations

from chatterbex.device.attention import eager_attention
from chatterbex.device.choice import Choice, choose, normalise
from chatterbex.device.detection import Device, describe, detect, devices
from chatterbex.device.environment import prepare_environment
from chatterbex.device.failure import DeviceFailure, StrayTensorsError, classify
from chatterbex.device.machine import Machine, look
from chatterbex.device.memory import empty_cache, free_memory, shortage, size_of
from chatterbex.device.placement import Placement, PlacementReport, moving
from chatterbex.device.probing import Check, ProbeReport, probe
from chatterbex.device.runtime import Runtime
from chatterbex.device.tensors import Stray, stray_tensors, tensors

__all__ = [
    "Check",
    "Choice",
    "Device",
    "DeviceFailure",
    "Machine",
    "Placement",
    "PlacementReport",
    "ProbeReport",
    "Runtime",
    "Stray",
    "StrayTensorsError",
    "choose",
    "classify",
    "describe",
    "detect",
    "devices",
    "eager_attention",
    "empty_cache",
    "free_memory",
    "look",
    "moving",
    "normalise",
    "prepare_environment",
    "probe",
    "shortage",
    "size_of",
    "stray_tensors",
    "tensors",
]
