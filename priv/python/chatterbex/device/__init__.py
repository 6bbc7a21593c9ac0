"""Devices: which ones this machine has, which ones work, and how a model moves to one and back.

Importing this package does not import PyTorch, so it can report that PyTorch is missing.

- ``prepare_environment``: sets variables that PyTorch reads when it is imported.
- ``detect``, ``devices``: list the devices. ``probe``: checks one. ``choose``: picks one.
- ``place``: moves the parts of a model to a device. ``Proof``: compares its results with the CPU's.
- ``Runtime``: does all this for one model, and falls back to the CPU when the device fails.
"""

from __future__ import annotations

from chatterbex.device.attention import eager_attention
from chatterbex.device.choice import Choice, choose, normalise
from chatterbex.device.detection import Device, describe, detect, devices
from chatterbex.device.environment import prepare_environment
from chatterbex.device.failure import DeviceFailure, StrayTensorsError, WrongResultsError, classify
from chatterbex.device.machine import Machine, look
from chatterbex.device.memory import Needs, empty_cache, free_memory, size_of
from chatterbex.device.placement import PlacementReport, moving, place
from chatterbex.device.probing import Check, ProbeReport, probe
from chatterbex.device.proof import ExpectedResult, Proof, ProofReport, finite, require_finite, tolerance
from chatterbex.device.runtime import Runtime, Subject
from chatterbex.device.tensors import Stray, stray_tensors, tensors

__all__ = [
    "Check",
    "Choice",
    "Device",
    "DeviceFailure",
    "ExpectedResult",
    "Machine",
    "Needs",
    "PlacementReport",
    "ProbeReport",
    "Proof",
    "ProofReport",
    "Runtime",
    "Stray",
    "StrayTensorsError",
    "Subject",
    "WrongResultsError",
    "choose",
    "classify",
    "describe",
    "detect",
    "devices",
    "eager_attention",
    "empty_cache",
    "finite",
    "free_memory",
    "look",
    "moving",
    "normalise",
    "place",
    "prepare_environment",
    "probe",
    "require_finite",
    "size_of",
    "stray_tensors",
    "tensors",
    "tolerance",
]
