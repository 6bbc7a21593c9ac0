"""T3 turns text tokens into speech tokens, with our own weights, decode loop and samplers.

Example:
    t3 = T3.from_state_dict(T3Config.nano(), state)
    session = T3Session(t3.front, T3CpuPass(t3, rows=8), max_batch=8)
    session.admit(T3Request("a", text_tokens, conditionals, seed=7))
    while session.busy:
        for event in session.step():
            ...

The path of a request: `session.py` (the loop) gets embeddings from `conditioning.py` and logits from a pass
(`cpu.py`, `gpu.py`), and draws tokens with the native library (`native.py`).
"""

from .backbone import Body
from .conditionals import T3Conditionals
from .config import Rope, Sampling, T3Config
from .cpu import T3CpuPass
from .gpu import T3GpuPass
from .model import T3
from .session import T3Request, T3Session, TokenEvent, rows_of_request

__all__ = [
    "T3",
    "Body",
    "Rope",
    "Sampling",
    "T3Conditionals",
    "T3Config",
    "T3CpuPass",
    "T3GpuPass",
    "T3Request",
    "T3Session",
    "TokenEvent",
    "rows_of_request",
]
