"""T3: text tokens to speech tokens. Our own weights, decode loop and samplers.

Example:
    t3 = T3.from_state_dict(T3Config.nano(), state)
    session = T3Session(t3, max_batch=8)
    session.admit(T3Request("a", text_tokens, conditionals, seed=7))
    while session.busy:
        for event in session.step():
            ...
"""

from .conditionals import T3Conditionals
from .config import Alignment, Rope, Sampling, T3Config
from .model import T3
from .session import T3Request, T3Session, TokenEvent

__all__ = [
    "T3",
    "Alignment",
    "Rope",
    "Sampling",
    "T3Conditionals",
    "T3Config",
    "T3Request",
    "T3Session",
    "TokenEvent",
]
