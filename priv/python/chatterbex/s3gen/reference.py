"""S3Gen's part of a voice, and how it is made from audio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chatterbex.errors import ChatterbexError
from chatterbex.s3gen.network import RATE, TOKEN

_CODES = 6561
_BANDS = 80
_SPEAKER = 192


@dataclass(frozen=True)
class Reference:
    """A voice, as S3Gen hears it.

    Attributes:
        prompt_token: (1, N) int64: the speech tokens of the reference audio.
        prompt_feat: (1, 2 * N, 80) float32: its mel frames.
        embedding: (1, 192) float32: the speaker's embedding.
    """

    prompt_token: Tensor
    prompt_feat: Tensor
    embedding: Tensor

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Reference:
        """The ``gen`` part of an upstream ``conds.pt``.

        Raises:
            ChatterbexError: A value is missing, of the wrong type, or not a finite number
                ("model_load_failed").
        """
        token, feat, embedding = (
            _tensor(values, name) for name in ("prompt_token", "prompt_feat", "embedding")
        )
        # Upstream's own loading casts all of them to the weights' type, tokens too.
        token = token.detach().reshape(1, -1).long()
        if feat.dim() != 3 or feat.shape[0] != 1 or feat.shape[2] != _BANDS:
            raise _unfit(f"prompt_feat is {list(feat.shape)}, not [1, frames, {_BANDS}]")
        if embedding.numel() != _SPEAKER:
            raise _unfit(f"embedding has {embedding.numel()} numbers, not {_SPEAKER}")
        feat = feat.detach().float()
        embedding = embedding.detach().float().reshape(1, -1)
        if not (torch.isfinite(feat).all() and torch.isfinite(embedding).all()):
            raise _unfit("it has numbers that are not finite")
        if token.numel() and not (int(token.min()) >= 0 and int(token.max()) < _CODES):
            raise _unfit(f"prompt_token has ids outside 0..{_CODES - 1}")
        return cls(*_matched(token, feat), embedding)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {
            "prompt_token": self.prompt_token,
            "prompt_feat": self.prompt_feat,
            "embedding": self.embedding,
        }

    def beginning(self, seconds: float) -> Reference:
        """The same voice with a shorter prompt.

        The embedding of the speaker stays that of the whole recording.

        Args:
            seconds: how much of the prompt to keep. A shorter prompt is not changed.
        """
        tokens = int(seconds * RATE / TOKEN)
        return replace(
            self, prompt_token=self.prompt_token[:, :tokens], prompt_feat=self.prompt_feat[:, : 2 * tokens]
        )

    def to(self, device: torch.device | str) -> Reference:
        """The same voice on another device."""
        return replace(self, **{name: value.to(device) for name, value in self.tensors.items()})


class Analysis(nn.Module):
    """Extracts what S3Gen and T3 need from reference audio. It stays on the CPU.

    Attributes:
        tokenizer: turns audio into speech tokens.
        speaker_encoder: turns audio into the speaker's embedding.
    """

    def __init__(self, published: Any) -> None:
        """Keeps the two networks of upstream's module."""
        super().__init__()
        self.tokenizer = published.tokenizer
        self.speaker_encoder = published.speaker_encoder
        self._mel = published.mel_extractor

    def tokens(self, audio_16k: np.ndarray, max_tokens: int | None = None) -> Tensor:
        """Speech tokens of 16 kHz audio: (1, N) int64.

        Args:
            audio_16k: float32, 1-D.
            max_tokens: the most tokens to make; None for all.
        """
        with torch.inference_mode():
            tokens, _ = self.tokenizer([_float32(audio_16k)], max_len=max_tokens)
        return torch.atleast_2d(
            tokens
        ).clone()  # outside inference mode it is an ordinary tensor, which can be moved

    def reference(self, audio_24k: np.ndarray, audio_16k: np.ndarray) -> Reference:
        """The voice of at most 10 seconds of audio, given at both rates."""
        with torch.inference_mode():
            mel = self._mel(torch.from_numpy(_float32(audio_24k))[None]).transpose(1, 2).float()
            embedding = self.speaker_encoder.inference(torch.from_numpy(_float32(audio_16k))[None]).float()
        token, feat = _matched(self.tokens(audio_16k), mel)
        return Reference(token.clone(), feat.clone(), embedding.clone())


def _matched(token: Tensor, feat: Tensor) -> tuple[Tensor, Tensor]:
    """Makes it two mel frames for every token: upstream loses a frame of speech if there is one too many."""
    count = min(token.shape[1], feat.shape[1] // 2)
    return token[:, :count], feat[:, : 2 * count]


def _float32(audio: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(audio, dtype=np.float32).reshape(-1)


def _tensor(values: Mapping[str, Any], name: str) -> Tensor:
    value = values.get(name)
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if not isinstance(value, Tensor):
        raise _unfit(f"{name} is not a tensor")
    return value


def _unfit(problem: str) -> ChatterbexError:
    return ChatterbexError(
        "model_load_failed",
        f"The voice does not fit this model: {problem}. It should be the 'gen' part of a conds.pt, or "
        "a voice made by this version.",
        {"problem": problem},
    )
