"""T3 on the CPU, computed by the native library `t3.so`.

The library has the engine, the layers that encode a voice, and the sampler, which draws tokens from the
logits of any device.

The numbers are the same, bit for bit, on every processor, with any number of threads, alone and in any
batch, however a text is cut into pieces, and whether or not a voice is shared. `native/t3` documents the
order of its sums.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Mapping, Sequence
from ctypes import POINTER, byref, c_double, c_float, c_uint8, c_uint32, c_uint64
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ..errors import ChatterbexError
from .config import Sampling, T3Config

Precision = Literal["float32", "int8"]

_VERSION = 3
_ERRORS = {1: ValueError, 2: MemoryError, 3: FloatingPointError}

# The tensors that an engine may need from a checkpoint. Other names are not an error.
_NEEDED = ("tfmr.", "speech_head.")

_NAMES = 1 << 16


class _Config(ctypes.Structure):
    _fields_ = [
        *((name, c_uint32) for name in ("backbone", "layers", "dim", "heads", "ffn", "vocab", "positions")),
        ("norm_eps", c_float),
        *((f"rope_{name}", c_float) for name in ("theta", "factor", "low_freq_factor", "high_freq_factor")),
        ("rope_original_positions", c_float),
        ("precision", c_uint32),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("sequences", c_uint32),
        ("threads", c_uint32),
        ("ids", POINTER(c_uint64)),
        ("counts", POINTER(c_uint32)),
        ("wanted", POINTER(c_uint8)),
        ("x", POINTER(c_float)),
        ("x_numbers", c_uint64),
        ("logits", POINTER(c_float)),
        ("logits_numbers", c_uint64),
        ("finite", POINTER(c_uint8)),
    ]


class _Draw(ctypes.Structure):
    _fields_ = [
        *((name, c_double) for name in ("temperature", "repetition_penalty", "top_p", "min_p")),
        ("seed", c_uint64),
        *((name, c_uint32) for name in ("step", "attempt", "top_k", "penalty_first")),
    ]


def library_path() -> Path:
    """The path of the library: in `$CHATTERBEX_NATIVE_DIR`, else in `priv/native`."""
    folder = os.environ.get("CHATTERBEX_NATIVE_DIR")
    return (Path(folder) if folder else Path(__file__).resolve().parents[3] / "native") / "t3.so"


def instruction_sets() -> list[str]:
    """Names of the instruction sets that an engine can use here, the fastest first; the last is "scalar"."""
    text = ctypes.create_string_buffer(256)
    _call("t3_instruction_sets", text, c_uint64(len(text)))
    return text.value.decode().split(",")


def bandwidth(threads: int = 2, nbytes: int = 1 << 29) -> float:
    """Measures how fast `threads` threads read memory, in bytes per second. This limits a decode step.

    Args:
        threads: how many threads read.
        nbytes: how much memory to allocate and read. It should be much larger than the caches.
    """
    speed = c_double()
    _call("t3_bandwidth", c_uint64(nbytes), c_uint32(threads), byref(speed))
    return speed.value


def linear(x: Any, weight: Any, bias: Any | None = None, *, instruction_set: str = "") -> np.ndarray:
    """A linear layer, on the calling thread.

    Args:
        x: (M, K) float32, numpy or torch on the CPU, as all arrays here.
        weight: (N, K).
        bias: (N,), or None.
        instruction_set: see `T3Engine`.

    Returns:
        (M, N).

    Raises:
        ValueError: if the shapes do not fit each other, or a weight is not finite.
        MemoryError: if there is no room for a copy of the weights.
    """
    x, weight = _array("x", x, 2), _array("weight", weight, 2)
    rows, inputs = x.shape
    outputs = len(weight)
    _fits("weight", weight, (outputs, inputs))
    if bias is not None:
        bias = _array("bias", bias, 1)
        _fits("bias", bias, (outputs,))
    to = np.empty((rows, outputs), np.float32)
    sizes = c_uint64(rows), c_uint64(inputs), c_uint64(outputs)
    added = None if bias is None else _at(bias, c_float)
    arrays = _at(x, c_float), _at(weight, c_float), added, _at(to, c_float)
    _call("t3_linear", instruction_set.encode(), *sizes, *arrays)
    return to


def layer_norm(x: Any, weight: Any, bias: Any, eps: float, *, instruction_set: str = "") -> np.ndarray:
    """LayerNorm of each row, on the calling thread.

    Args:
        x: (M, N); N is a multiple of 16.
        weight: (N,).
        bias: (N,).
        eps: added to the variance.
        instruction_set: see `T3Engine`.

    Returns:
        (M, N).

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    x, weight, bias = _array("x", x, 2), _array("weight", weight, 1), _array("bias", bias, 1)
    rows, width = x.shape
    _fits("weight", weight, (width,))
    _fits("bias", bias, (width,))
    to = np.empty_like(x)
    arrays = _at(x, c_float), _at(weight, c_float), _at(bias, c_float), c_float(eps), _at(to, c_float)
    _call("t3_layer_norm", instruction_set.encode(), c_uint64(rows), c_uint64(width), *arrays)
    return to


def attention(q: Any, k: Any, v: Any, *, instruction_set: str = "") -> np.ndarray:
    """Scaled dot-product attention without a mask, on the calling thread.

    Args:
        q: (H, T, D); D is a multiple of 16.
        k: (H, S, D); S is 1 or more.
        v: (H, S, D).
        instruction_set: see `T3Engine`.

    Returns:
        (H, T, D).

    Raises:
        ValueError: if the shapes do not fit each other.
        MemoryError: if there is no room for a copy of a head's keys.
    """
    q, k, v = _array("q", q, 3), _array("k", k, 3), _array("v", v, 3)
    heads, queries, width = q.shape
    positions = k.shape[1]
    _fits("k", k, (heads, positions, width))
    _fits("v", v, k.shape)
    to = np.empty_like(q)
    sizes = (c_uint64(size) for size in (heads, queries, positions, width))
    arrays = (_at(array, c_float) for array in (q, k, v, to))
    _call("t3_attention", instruction_set.encode(), *sizes, *arrays)
    return to


class Step(NamedTuple):
    """The results of one pass.

    Attributes:
        logits: (wanted, V) float32: a row for each sequence that wanted it, in order.
        finite: (sequences,) bool: whether a sequence's hidden state is finite. If it is not, the sequence
            cannot continue, and you should not make a prefix from it. Other sequences are not affected.
    """

    logits: np.ndarray
    finite: np.ndarray


class T3Engine:
    """A backbone with its weights, its sequences and its threads.

    It takes embeddings, with learned positions added if the backbone has them (GPT-2), and returns logits.
    Calls from several threads run one after the other.

    Attributes:
        config: the model's sizes.
        threads: the most threads that work on a call, including the calling one. You may change it between
            calls. The results do not depend on it.
    """

    def __init__(
        self,
        config: T3Config,
        weights: Mapping[str, Any],
        *,
        threads: int = 2,
        precision: Precision = "float32",
        instruction_set: str = "",
    ) -> None:
        """Packs the weights; the caller's own are not needed afterwards.

        Args:
            config: sizes; each head must have 64 numbers.
            weights: numpy arrays or torch tensors on the CPU, by their names in the checkpoint. Those that
                speaking does not need are ignored.
            threads: see the attribute; 1 to 64.
            precision: "int8" stores the matrices in 8 bits, with a scale for every 32 inputs of an output. It
                rounds the numbers that they are multiplied with in the same way, row by row. It reads a
                quarter of the memory.
            instruction_set: one of `instruction_sets`, or "" for the best.

        Raises:
            ValueError: if the sizes are invalid, or a weight is missing, of the wrong shape or not finite.
            MemoryError: if there is no room for the weights.
            ChatterbexError: `native_not_loaded` if there is no library.
        """
        self.config = config
        self.threads = threads
        self._engine = c_uint64(0)
        rope = config.rope
        sizes = _Config(
            backbone={"gpt2": 0, "llama": 1}[config.backbone],
            layers=config.layers,
            dim=config.dim,
            heads=config.heads,
            ffn=config.ffn,
            vocab=config.speech_vocab,
            positions=config.positions,
            norm_eps=config.norm_eps,
            rope_theta=rope.theta,
            rope_factor=rope.factor,
            rope_low_freq_factor=rope.low_freq_factor,
            rope_high_freq_factor=rope.high_freq_factor,
            rope_original_positions=rope.original_positions,
            precision={"float32": 0, "int8": 1}[precision],
        )
        _call("t3_new", byref(sizes), instruction_set.encode(), byref(self._engine))
        for name in weights:
            if name.startswith(_NEEDED):
                self._take(name, weights[name])
        missing = ctypes.create_string_buffer(_NAMES)
        _call("t3_missing", self._engine, missing, c_uint64(_NAMES))
        if missing.value:
            names = missing.value.decode().split(",")
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            raise ValueError(f"these weights are missing: {', '.join(names[:8])}{more}")

    def __del__(self) -> None:
        # the module's own names may no longer exist when the interpreter ends
        if getattr(self, "_engine", None) and self._engine.value:
            _library().t3_free(self._engine)

    @property
    def nbytes(self) -> tuple[int, int]:
        """Bytes of the weights, and of the KV cache. Shared memory counts once."""
        weights, cache = c_uint64(), c_uint64()
        _call("t3_bytes", self._engine, byref(weights), byref(cache))
        return weights.value, cache.value

    def open(self, positions: int, prefix: int | None = None) -> int:
        """Begins a sequence.

        Args:
            positions: the most positions that it will have. Memory is allocated as they are written.
            prefix: the prefix that it begins with, from `prefix`.

        Returns:
            The sequence's number.

        Raises:
            ValueError: if the model has fewer positions, or there is no such prefix.
        """
        sequence = c_uint64()
        _call("t3_open", self._engine, c_uint64(positions), c_uint64(prefix or 0), byref(sequence))
        return sequence.value

    def prefix(self, sequence: int, length: int) -> int:
        """Keeps the first `length` positions of a sequence, stored once, for other sequences to begin with.

        The prefix exists until you close it, even if the sequence ends before.

        Returns:
            The prefix's number.

        Raises:
            ValueError: if the sequence is not that long.
        """
        prefix = c_uint64()
        _call("t3_prefix", self._engine, c_uint64(sequence), c_uint64(length), byref(prefix))
        return prefix.value

    def close(self, number: int) -> None:
        """Ends a sequence, or releases a prefix; sequences that began with the prefix keep it.

        Raises:
            ValueError: if no sequence or prefix has this number.
        """
        _call("t3_close", self._engine, c_uint64(number))

    def length(self, sequence: int) -> int:
        """How many positions of a sequence have been written."""
        length = c_uint64()
        _call("t3_length", self._engine, c_uint64(sequence), byref(length))
        return length.value

    def forward(
        self,
        sequences: Sequence[int],
        x: Any,
        counts: Sequence[int] | None = None,
        want: Sequence[bool] | None = None,
    ) -> Step:
        """Continues sequences.

        Args:
            sequences: their numbers, each once.
            x: (sum of counts, dim) float32 embeddings, sequence after sequence; numpy or torch on the CPU.
            counts: how many positions each one gets; None for 1 each.
            want: whether each one wants the logits of its last position; None for all.

        Raises:
            ValueError: if the arguments do not fit each other or the sequences. Nothing has changed.
            MemoryError: if there is no room for keys and values. Nothing has changed.
        """
        number = len(sequences)
        ids = np.asarray(sequences, dtype=np.uint64).reshape(number)
        rows = np.ones(number, np.uint32) if counts is None else np.asarray(counts, np.uint32).reshape(-1)
        wanted = np.ones(number, np.uint8) if want is None else np.asarray(want, np.uint8).reshape(-1)
        if len(rows) != number or len(wanted) != number:
            raise ValueError("there must be as many counts and flags as sequences")
        x = np.ascontiguousarray(_float32(x))
        logits = np.empty((int(np.count_nonzero(wanted)), self.config.speech_vocab), np.float32)
        finite = np.zeros(number, np.uint8)
        batch = _Batch(
            sequences=number,
            threads=max(1, self.threads),
            ids=_at(ids, c_uint64),
            counts=_at(rows, c_uint32),
            wanted=_at(wanted, c_uint8),
            x=_at(x, c_float),
            x_numbers=x.size,
            logits=_at(logits, c_float),
            logits_numbers=logits.size,
            finite=_at(finite, c_uint8),
        )
        _call("t3_forward", self._engine, byref(batch))
        return Step(logits, finite.astype(bool))

    def _take(self, name: str, tensor: Any) -> None:
        array = _float32(tensor)
        if any(stride % 4 or stride < 0 for stride in array.strides):
            array = np.ascontiguousarray(array)
        sizes = (c_uint64 * array.ndim)(*array.shape)
        strides = (c_uint64 * array.ndim)(*(stride // 4 for stride in array.strides))
        used = c_uint8()
        _call(
            "t3_take",
            self._engine,
            name.encode(),
            _at(array, c_float),
            c_uint32(array.ndim),
            sizes,
            strides,
            c_uint32(max(1, self.threads)),
            byref(used),
        )


class Sampler:
    """Draws the tokens of one request, and remembers them.

    Llama models apply repetition penalty, temperature, min_p, top_p. GPT-2 models apply temperature, top_k,
    top_p, repetition penalty. The models were tuned for this order.

    The same logits, seed and attempt give the same tokens, whichever device computed the logits.

    Attributes:
        drawn: the tokens so far.
    """

    def __init__(self, config: T3Config, sampling: Sampling, seed: int, attempt: int = 0) -> None:
        """A sampler at the beginning of a speech.

        Args:
            config: gives the order and the start token.
            sampling: how to draw.
            seed: 0 to 2**64 - 1; the same seed draws the same tokens.
            attempt: how often the speech was started before; each attempt draws other tokens.
        """
        self._penalty_first = config.backbone == "llama"
        self._draw = _Draw(
            temperature=sampling.temperature,
            repetition_penalty=sampling.repetition_penalty,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            seed=seed,
            attempt=attempt,
            top_k=min(sampling.top_k, 2**32 - 1),
            penalty_first=self._penalty_first,
        )
        # the tokens that the penalty applies to, each once; the speech begins with the start token
        self._ids = {config.start_speech}
        self._seen = np.array([config.start_speech], np.uint32)
        self.drawn: list[int] = []

    def draw(self, logits: Any) -> int:
        """Draws a token.

        Args:
            logits: (V,) or (1, V) float32, numpy or torch on the CPU.

        Raises:
            FloatingPointError: if no token can be drawn from the logits, because they are not finite.
        """
        token = c_uint32()
        self._call("t3_draw", _row(logits), byref(token))
        self._remember(token.value)
        return token.value

    def scores(self, logits: Any) -> np.ndarray:
        """(V,) scores after the filters, from which the next draw would draw; excluded tokens are -inf."""
        logits = _row(logits)
        scores = np.empty_like(logits)
        self._call("t3_scores", logits, _at(scores, c_float))
        return scores

    def _call(self, function: str, logits: np.ndarray, to: Any) -> None:
        self._draw.step = len(self.drawn)
        seen = self._seen
        count, size = c_uint64(len(seen)), c_uint64(logits.size)
        _call(function, byref(self._draw), _at(logits, c_float), size, _at(seen, c_uint32), count, to)

    def _remember(self, token: int) -> None:
        if not self._penalty_first and not self.drawn:
            # these models are penalised for spoken tokens; the start token only counts at first
            self._ids.clear()
            self._seen = self._seen[:0]
        self.drawn.append(token)
        if token not in self._ids:
            self._ids.add(token)
            self._seen = np.append(self._seen, np.uint32(token))


def _row(logits: Any) -> np.ndarray:
    return np.ascontiguousarray(_float32(logits)).reshape(-1)


def _float32(numbers: Any) -> np.ndarray:
    """A float32 array, over the same memory if it is float32 already. This does not import torch."""
    if hasattr(numbers, "detach"):
        numbers = numbers.detach().float().numpy()
    return np.asarray(numbers, dtype=np.float32)


def _array(name: str, numbers: Any, sizes: int) -> np.ndarray:
    array = np.ascontiguousarray(_float32(numbers))
    if array.ndim != sizes:
        raise ValueError(f"{name} must have {sizes} dimensions, not {array.ndim}")
    return array


def _fits(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} must be {shape}, not {array.shape}")


def _at(array: np.ndarray, kind: Any) -> Any:
    return array.ctypes.data_as(POINTER(kind))


@functools.cache
def _library() -> ctypes.CDLL:
    path = library_path()
    remedy = "Build it with `mix compile --force`."
    try:
        library = ctypes.CDLL(str(path))
        version = library.t3_version()
    except (OSError, AttributeError) as error:
        message = f"The native library {path} cannot be loaded: {error}. {remedy}"
        raise ChatterbexError("native_not_loaded", message, {"library": str(path)}) from error
    if version != _VERSION:
        message = f"The native library {path} belongs to another version of Chatterbex. {remedy}"
        raise ChatterbexError("native_not_loaded", message, {"library": str(path)})
    library.t3_message.restype = ctypes.c_char_p
    return library


def _call(function: str, *arguments: Any) -> None:
    library = _library()
    code = getattr(library, function)(*arguments)
    if code:
        message = (library.t3_message() or b"").decode(errors="replace")
        raise _ERRORS.get(code, RuntimeError)(message)
