"""S3Gen turns speech tokens into sound, with upstream's networks and our own passes through them.

    s3gen, analysis = load(path, meanflow=True)
    reference = analysis.reference(samples_24k)
    decoding = Decoding(S3GenCpuPass(s3gen), reference, seed=7)
    samples = decoding.decode(tokens, final=True)

- ``S3Gen``: the weights of the flow and the vocoder; the part that moves to a device.
- ``S3GenCpuPass``, ``S3GenGpuPass``: the passes through them, for each kind of device.
- ``Analysis``: makes a ``Reference`` from reference audio. It runs once per voice, so it stays on the CPU.
- ``Decoding``: turns one request's tokens into samples, whole or in chunks.
- ``FlowOptions``: options that trade the flow's quality for speed.
"""

from __future__ import annotations

from chatterbex.s3gen.cpu import S3GenCpuPass
from chatterbex.s3gen.decoding import Decoding, together
from chatterbex.s3gen.flow_options import FlowOptions
from chatterbex.s3gen.gpu import S3GenGpuPass
from chatterbex.s3gen.loading import load
from chatterbex.s3gen.network import CODES, FRAME, RATE, SILENCE, TOKEN, S3Gen
from chatterbex.s3gen.passes import MelTask, S3GenPass
from chatterbex.s3gen.reference import Analysis, Reference

__all__ = [
    "CODES",
    "FRAME",
    "RATE",
    "SILENCE",
    "TOKEN",
    "Analysis",
    "Decoding",
    "FlowOptions",
    "MelTask",
    "Reference",
    "S3Gen",
    "S3GenCpuPass",
    "S3GenGpuPass",
    "S3GenPass",
    "load",
    "together",
]
