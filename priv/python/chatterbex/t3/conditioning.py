"""Turns voices and texts into the embeddings that come before the speech.

This runs once per voice and once per text, on the CPU, whichever device speaks. The native library computes
every sum, so a voice's embeddings are the same, bit for bit, on every processor and with any number of
threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ChatterbexError
from . import native
from .conditionals import T3Conditionals
from .config import T3Config

_NORM_EPS = 1e-5
_PREFIX = "cond_enc."


def condition_shapes(config: T3Config) -> dict[str, tuple[int, ...]]:
    """Names (as in checkpoints) and shapes of the tensors that encode a voice."""
    dim = config.dim
    shapes: dict[str, tuple[int, ...]] = {
        "spkr_enc.weight": (dim, config.speaker_dim),
        "spkr_enc.bias": (dim,),
    }
    if config.emotion:
        shapes["emotion_adv_fc.weight"] = (dim, 1)
    if config.perceiver_queries:
        shapes["perceiver.pre_attention_query"] = (1, config.perceiver_queries, dim)
        for layer in ("norm", "to_q", "to_k", "to_v", "proj_out"):
            shapes[f"perceiver.attn.{layer}.weight"] = (dim,) if layer == "norm" else (dim, dim)
            shapes[f"perceiver.attn.{layer}.bias"] = (dim,)
    return {f"{_PREFIX}{name}": shape for name, shape in shapes.items()}


class ConditionEncoder:
    """Speaker, speech prompt and emotion, one after the other."""

    def __init__(self, config: T3Config, weights: Mapping[str, Tensor], instruction_set: str = "") -> None:
        """Keeps its part of a checkpoint, without copying it.

        Args:
            config: the checkpoint's sizes.
            weights: at least the tensors of `condition_shapes`, on the CPU.
            instruction_set: see `native.T3Engine`.
        """
        self._heads = config.perceiver_heads
        self._weights = {name.removeprefix(_PREFIX): weights[name] for name in condition_shapes(config)}
        self._set = instruction_set

    def __call__(self, speaker: Tensor, prompt: Tensor | None, emotion: Tensor | None) -> Tensor:
        """Assembles the conditioning.

        Args:
            speaker: (1, speaker_dim).
            prompt: (P, dim) embedded speech prompt, or None.
            emotion: one number in any shape; models without it ignore it.

        Returns:
            (length, dim).
        """
        pieces = [self._linear("spkr_enc", speaker.reshape(1, -1))]
        if prompt is not None:
            pieces.append(self._condensed(prompt.numpy()))
        if "emotion_adv_fc.weight" in self._weights and emotion is not None:
            pieces.append(self._linear("emotion_adv_fc", emotion.reshape(1, 1)))
        return torch.from_numpy(np.concatenate(pieces))

    def _condensed(self, prompt: np.ndarray) -> np.ndarray:
        """Condenses a prompt of any length to a fixed number of embeddings, if the model has a perceiver."""
        queries = self._weights.get("perceiver.pre_attention_query")
        if queries is None:
            return prompt
        gathered = self._attended(queries[0].numpy(), prompt)
        return self._attended(gathered, gathered)

    def _attended(self, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """(Q, dim) queries that attend to (S, dim): a shared norm, attention, a residual."""
        normed, source = self._norm(queries), self._norm(keys)
        q = self._split(self._linear("perceiver.attn.to_q", normed))
        k = self._split(self._linear("perceiver.attn.to_k", source))
        v = self._split(self._linear("perceiver.attn.to_v", source))
        mixed = native.attention(q, k, v, instruction_set=self._set)
        together = mixed.transpose(1, 0, 2).reshape(queries.shape)
        return queries + self._linear("perceiver.attn.proj_out", together)

    def _split(self, x: np.ndarray) -> np.ndarray:
        """(length, dim) to (heads, length, dim / heads)."""
        return x.reshape(len(x), self._heads, -1).transpose(1, 0, 2)

    def _norm(self, x: np.ndarray) -> np.ndarray:
        name = "perceiver.attn.norm"
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return native.layer_norm(x, weight, bias, _NORM_EPS, instruction_set=self._set)

    def _linear(self, name: str, x: np.ndarray | Tensor) -> np.ndarray:
        weight, bias = self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias")
        return native.linear(x, weight, bias, instruction_set=self._set)


class Front:
    """Makes what comes before the speech of one T3: the voice, the text, the start of speech.

    Attributes:
        config: the T3's sizes.
    """

    def __init__(self, config: T3Config, weights: Mapping[str, Tensor], instruction_set: str = "") -> None:
        """Keeps its part of a checkpoint, without copying it.

        Args:
            config: the checkpoint's sizes.
            weights: all of its tensors, on the CPU.
            instruction_set: see `native.T3Engine`; the results do not depend on it.
        """
        self.config = config
        self._encoder = ConditionEncoder(config, weights, instruction_set)
        self._text = weights["text_emb.weight"]
        self._speech = weights["speech_emb.weight"]
        self._text_places = weights.get("text_pos_emb.emb.weight")
        self._speech_places = weights.get("speech_pos_emb.emb.weight")

    def voice(self, voice: T3Conditionals) -> Tensor:
        """(P, dim): the embeddings that come before the text."""
        prompt = None
        if voice.cond_prompt_speech_tokens is not None:
            tokens = voice.cond_prompt_speech_tokens.reshape(-1)
            prompt = F.embedding(tokens, self._speech)
            if self._speech_places is not None:
                prompt = prompt + self._speech_places[: tokens.numel()]
        return self._encoder(voice.speaker_emb, prompt, voice.emotion_adv)

    def voice_length(self, voice: T3Conditionals) -> int:
        """How many positions `voice` returns."""
        length = 2 if self.config.emotion else 1
        if voice.cond_prompt_speech_tokens is not None:
            length += self.config.perceiver_queries or voice.cond_prompt_speech_tokens.numel()
        return length

    def text(self, tokens: Sequence[int], guided: bool) -> Tensor:
        """The text, followed by the start of speech.

        Args:
            tokens: text token ids.
            guided: also make the sequence that guidance compares with, which has the positions of the
                text without the text.

        Returns:
            (1 or 2, T, dim).
        """
        config = self.config
        ids = torch.tensor(list(tokens), dtype=torch.long)
        text = F.embedding(ids, self._text)[None]  # (1, text, dim)
        if guided:
            text = torch.cat((text, torch.zeros_like(text)))
        if self._text_places is not None:
            text = text + self._text_places[: ids.numel()]
        start = self._speech[config.start_speech]
        if self._speech_places is not None:
            start = start + self._speech_places[0]
        starts = start.expand(text.shape[0], config.speech_starts, -1)
        return torch.cat((text, starts), dim=1)

    def check(self, voice: T3Conditionals) -> None:
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


def _foreign(problem: str) -> ChatterbexError:
    return ChatterbexError(
        "not_supported",
        f"This voice does not fit this model: {problem}. Clone it again with this model.",
        {"problem": problem},
    )
