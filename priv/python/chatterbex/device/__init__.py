"""Devices: what this machine has, what works, and how a model gets there and back in one piece.

Importing this package does not import PyTorch, so a machine without it can say so.

- ``prepare_environment``: variables that PyTorch reads as it is imported.
- ``detect``, ``devices``: what there is. ``probe``: what works. ``choose``: what to use.
- ``place``: moves the parts of a model there. ``Proof``: compares what it computes there with the CPU.
- ``Runtime``: the above for one model, and back to the CPU when its device fails.
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
from chatterbex.device.proof import Proof, ProofReport, Reference, finite, require_finite, tolerance
from chatterbex.device.runtime import Runtime, Subject
from chatterbex.device.tensors import Stray, stray_tensors, tensors

__all__ = [
    "Check",
    "Choice",
    "Device",
    "DeviceFailure",
    "Machine",
    "Needs",
    "PlacementReport",
    "ProbeReport",
    "Proof",
    "ProofReport",
    "Reference",
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
