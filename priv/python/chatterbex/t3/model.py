"""T3's weights: loading them, and the embeddings and passes made with them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ChatterbexError
from ..threads import torch_threads
from .backbone import Attention, Gpt2, Llama, Pass, matmuls
from .conditionals import T3Conditionals
from .conditioning import ConditionEncoder
from .config import T3Config
from .linear import Linear, Matmul, best_kernel

# What checkpoints hold that speaking does not need.
_UNUSED = re.compile(
    r"text_head\.(weight|bias)"
    r"|tfmr\.(wte|embed_tokens)\.weight"
    r"|tfmr\.h\.\d+\.attn\.(bias|masked_bias)"
    r"|tfmr\.(layers\.\d+\.self_attn\.)?rotary_emb\.\w+"
)

_LISTED = 12


class PositionEmbedding(nn.Module):
    """Learned positions, counted from where a part begins."""

    def __init__(self, positions: int, dim: int) -> None:
        """Makes room for the weights."""
        super().__init__()
        self.emb = nn.Embedding(positions, dim)


class T3(nn.Module):
    """Text tokens to speech tokens.

    Made by `from_state_dict`; `T3Session` speaks with it. Module names are those of the
    checkpoints.

    Attributes:
        config: what it is made of.
        kernel: the kernel that computes its big products, or None before `prepare`.
    """

    def __init__(self, config: T3Config) -> None:
        """Makes room for the weights, on whatever device is torch's default then."""
        super().__init__()
        self.config = config
        self.kernel: str | None = None
        self._exact: dict[tuple[str | None, int, int], bool] = {}
        self._same: dict[tuple[str | None, int, int, int], bool] = {}
        dim = config.dim
        self.tfmr = Llama(config) if config.backbone == "llama" else Gpt2(config)
        self.cond_enc = ConditionEncoder(config)
        self.text_emb = nn.Embedding(config.text_vocab, dim)
        self.speech_emb = nn.Embedding(config.speech_vocab, dim)
        self.text_pos_emb: PositionEmbedding | None = None
        self.speech_pos_emb: PositionEmbedding | None = None
        if config.learned_positions:
            self.text_pos_emb = PositionEmbedding(config.text_positions, dim)
            self.speech_pos_emb = PositionEmbedding(config.speech_positions, dim)
        self.speech_head = Linear(dim, config.speech_vocab, bias=config.backbone == "gpt2")
        self._head = Matmul(self.speech_head)
        self.requires_grad_(False)
        self.eval()

    # -- loading ---------------------------------------------------------------------------

    @classmethod
    def from_state_dict(cls, config: T3Config, state: Mapping[str, Any], check_numbers: bool = True) -> T3:
        """A T3 with the weights of a checkpoint.

        The tensors are taken as they are, without a copy, unless they are not float32: a
        memory-mapped file stays memory-mapped.

        Args:
            config: what the checkpoint is a checkpoint of.
            state: names to tensors, or the wrapping `{"model": [names to tensors]}`.
            check_numbers: refuse NaN and infinite weights.

        Raises:
            ChatterbexError: `model_load_failed`, naming what is missing, unknown, of the wrong
                shape or type, or not finite.
        """
        state = unwrap(state)
        with torch.device("meta"):
            model = cls(config)
        expected = {name: tuple(value.shape) for name, value in model.named_parameters()}
        weights = _checked(expected, state, check_numbers)
        model.load_state_dict(weights, strict=True, assign=True)
        model.requires_grad_(False)
        model.tfmr.build_buffers()
        return model

    # -- where it is, and how it computes --------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.speech_emb.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.speech_emb.weight.dtype

    @property
    def matmuls(self) -> Iterator[Matmul]:
        """All big products."""
        yield from matmuls(self.tfmr)
        yield self._head

    def prepare(self, kernel: str | None = None) -> None:
        """Gives the big matrices to a kernel; a session does it if nobody did.

        Args:
            kernel: name in `linear.KERNELS`; None chooses by device.
        """
        kernel = kernel or best_kernel(self.device, self.dtype)
        if kernel == self.kernel:
            return
        self.restore()
        with torch.no_grad():
            for product in self.matmuls:
                product.prepare(kernel)
        self.kernel = kernel

    def restore(self) -> None:
        """Undoes `prepare`."""
        with torch.no_grad():
            for product in self.matmuls:
                product.restore()
        self.kernel = None

    def _apply(self, fn: Any, recurse: bool = True) -> T3:
        # every move and cast comes through here: what a kernel has packed cannot be moved
        self.restore()
        self._exact.clear()
        self._same.clear()
        return super()._apply(fn, recurse)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter and buffer that is there, for those who check where they are."""
        yield from self.named_parameters()
        yield from self.named_buffers()

    # -- embeddings ------------------------------------------------------------------------

    def check_voice(self, voice: T3Conditionals) -> None:
        """Refuses a voice that this model cannot speak with.

        Raises:
            ChatterbexError: `not_supported` if the voice lacks what this model needs, or was
                made for another model.
        """
        config = self.config
        size = voice.speaker_emb.numel()
        if size != config.speaker_dim:
            raise _foreign(f"its speaker embedding has {size} numbers, not {config.speaker_dim}")
        if config.emotion and voice.emotion_adv is None:
            raise _foreign("it has no emotion value")
        tokens = voice.cond_prompt_speech_tokens
        if tokens is None:
            return
        if config.learned_positions and tokens.numel() > config.speech_positions:
            raise _foreign(f"its speech prompt has {tokens.numel()} tokens")
        if int(tokens.min()) < 0 or int(tokens.max()) >= config.speech_vocab:
            raise _foreign("its speech prompt has tokens that the model does not know")

    def voice_embeddings(self, voice: T3Conditionals) -> Tensor:
        """(P, dim): what stands in front of the text."""
        prompt = None
        if voice.cond_prompt_speech_tokens is not None:
            tokens = voice.cond_prompt_speech_tokens.reshape(-1)
            prompt = F.embedding(tokens, self.speech_emb.weight)
            if self.speech_pos_emb is not None:
                prompt = prompt + self.speech_pos_emb.emb.weight[: tokens.numel()]
        return self.cond_enc(voice.speaker_emb.to(self.dtype), prompt, voice.emotion_adv)

    def text_embeddings(self, tokens: Sequence[int], guided: bool) -> Tensor:
        """The text and the start of speech behind it.

        Args:
            tokens: text token ids.
            guided: also make the sequence that guidance compares with: no text, its positions.

        Returns:
            (1 or 2, T, dim).
        """
        config = self.config
        ids = torch.tensor(list(tokens), dtype=torch.long).to(self.device)
        text = F.embedding(ids, self.text_emb.weight)[None]  # (1, text, dim)
        if guided:
            text = torch.cat((text, torch.zeros_like(text)))
        if self.text_pos_emb is not None:
            text = text + self.text_pos_emb.emb.weight[: ids.numel()]
        start = self.speech_emb.weight[config.start_speech]
        if self.speech_pos_emb is not None:
            start = start + self.speech_pos_emb.emb.weight[0]
        starts = start.expand(text.shape[0], config.speech_starts, -1)
        return torch.cat((text, starts), dim=1)

    def speech_embeddings(self, tokens: Tensor, steps: Tensor) -> Tensor:
        """Embeds spoken tokens.

        Args:
            tokens: (M,) int64 ids.
            steps: (M,) int64: which token of its speech each is, the first being 1.

        Returns:
            (M, dim).
        """
        x = self.speech_emb.weight.index_select(0, tokens)
        if self.speech_pos_emb is not None:
            x = x + self.speech_pos_emb.emb.weight.index_select(0, steps)
        return x

    # -- passes ----------------------------------------------------------------------------

    def hidden(self, x: Tensor, positions: Tensor, attention: Attention, rowwise: bool = False) -> Tensor:
        """Runs the layers.

        Args:
            x: (M, dim) embeddings.
            positions: (M,) int64: each row's place in its sequence.
            attention: attention of one layer.
            rowwise: a row's result may not depend on the rows beside it.

        Returns:
            (M, dim), before the last norm.
        """
        run = Pass(attention, rowwise=rowwise)
        x = self.tfmr.enter(x, positions, run)
        for index, block in enumerate(self.tfmr.blocks):
            x = block(index, x, run)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """(M, dim) of `hidden` to (M, speech vocabulary)."""
        return self._head(self.tfmr.leave(x))

    @torch.inference_mode()
    def rows_are_exact(self, most: int) -> bool:
        """Whether a row's numbers are the same, to the bit, alone and beside others.

        Whether they are is up to the BLAS of the machine, so it is tried: one layer and the
        head, for every number of rows.

        Args:
            most: largest number of rows.
        """
        key = (self.kernel, torch.get_num_threads(), most)
        if key not in self._exact:
            self._exact[key] = self._try_rows(most)
        return self._exact[key]

    @torch.inference_mode()
    def is_exact_with(self, threads: int, most: int) -> bool:
        """Whether numbers are the same, to the bit, with other threads than those that are set now.

        Args:
            threads: of torch.
            most: largest number of rows.
        """
        key = (self.kernel, torch.get_num_threads(), threads, most)
        if key not in self._same:
            x = self._made_up(most)
            expected = [tensor for end in range(1, most + 1) for tensor in self._tried(x, 0, end)]
            with torch_threads(threads):
                given = [tensor for end in range(1, most + 1) for tensor in self._tried(x, 0, end)]
            self._same[key] = all(map(torch.equal, expected, given))
        return self._same[key]

    def _try_rows(self, most: int) -> bool:
        x = self._made_up(most)
        alone = [self._tried(x, row, row + 1) for row in range(most)]
        for count in range(2, most + 1):
            hidden, logits = self._tried(x, 0, count)
            if not torch.equal(hidden, torch.cat([row[0] for row in alone[:count]])):
                return False
            if not torch.equal(logits, torch.cat([row[1] for row in alone[:count]])):
                return False
        return True

    def _made_up(self, rows: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(rows, self.config.dim, generator=generator).to(self.device, self.dtype)

    def _tried(self, x: Tensor, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Some rows behind one layer and the head; attention aside."""
        positions = torch.arange(start, end).to(self.device)

        def values(_layer: int, qkv: Tensor) -> Tensor:
            return qkv[:, 2].flatten(1)

        run = Pass(values, rowwise=True)
        hidden = self.tfmr.blocks[0](0, self.tfmr.enter(x[start:end], positions, run), run)
        return hidden, self.logits(hidden)


def unwrap(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The names and tensors of a checkpoint, out of the `model` list that some are wrapped in."""
    inner = state.get("model")
    if isinstance(inner, (list, tuple)) and inner:
        inner = inner[0]
    return inner if isinstance(inner, Mapping) else state


def _checked(
    expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Any], check_numbers: bool
) -> dict[str, Tensor]:
    missing = sorted(set(expected) - set(state))
    unknown = sorted(name for name in state if name not in expected and not _UNUSED.fullmatch(name))
    wrong: list[str] = []
    weights: dict[str, Tensor] = {}
    for name, shape in expected.items():
        value = state.get(name)
        if value is None:
            continue
        if not torch.is_tensor(value) or not value.is_floating_point():
            kind = value.dtype if torch.is_tensor(value) else type(value).__name__
            wrong.append(f"{name}: {kind} instead of float32")
        elif tuple(value.shape) != shape:
            wrong.append(f"{name}: shape {tuple(value.shape)} instead of {shape}")
        else:
            value = value.detach().to(torch.float32)
            # one sum reads a tensor once and is not finite if any part of it is not
            if check_numbers and not math.isfinite(value.sum().item()):
                wrong.append(f"{name}: holds NaN or infinite numbers")
            weights[name] = value
    if missing or unknown or wrong:
        lists = {"missing": missing, "unexpected": unknown, "mismatched": wrong}
        said = "; ".join(f"{what}: {_some(names)}" for what, names in lists.items() if names)
        raise ChatterbexError(
            "model_load_failed",
            f"These are not the T3 weights that this model needs. {said}. The file may belong to "
            "another model or version, or be damaged: fetch it again with `mix chatterbex.models download`.",
            lists,
        )
    return weights


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _foreign(what: str) -> ChatterbexError:
    return ChatterbexError(
        "not_supported",
        f"This voice does not fit this model: {what}. Clone it again with this model.",
        {"problem": what},
    )
