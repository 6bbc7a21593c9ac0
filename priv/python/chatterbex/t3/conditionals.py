"""T3's part of a voice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import ChatterbexError


@dataclass(frozen=True)
class T3Conditionals:
    """A voice, as T3 sees it.

    All tensors are on the CPU. Only the embeddings made from them go to a device.

    Attributes:
        speaker_emb: (1, 256) float: the speaker's embedding.
        cond_prompt_speech_tokens: (1, P) int64: a sample of that voice's speech, or None.
        emotion_adv: (1, 1, 1) float: exaggeration, or None for models without it.
    """

    speaker_emb: Tensor
    cond_prompt_speech_tokens: Tensor | None = None
    emotion_adv: Tensor | None = None

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> T3Conditionals:
        """The T3 part of an upstream `conds.pt`.

        Saved embeddings are ignored, because they follow from the tokens and the model's own weights.

        Args:
            values: tensors, numbers or None, by name.

        Raises:
            ChatterbexError: `model_load_failed` if a value is missing or of the wrong type.
        """
        speaker = values.get("speaker_emb")
        if not torch.is_tensor(speaker) or not speaker.is_floating_point() or speaker.numel() == 0:
            raise _unfit("speaker_emb is not a tensor of floats")
        tokens = values.get("cond_prompt_speech_tokens")
        if tokens is not None:
            if not torch.is_tensor(tokens) or tokens.is_floating_point():
                raise _unfit("cond_prompt_speech_tokens is not a tensor of integers")
            tokens = tokens.detach().reshape(1, -1).long()
            tokens = tokens if tokens.shape[1] else None
        emotion = values.get("emotion_adv")
        if emotion is not None:
            emotion = torch.as_tensor(emotion, dtype=torch.float32).detach().reshape(-1)
            if emotion.numel() != 1:
                raise _unfit("emotion_adv is not one number")
            emotion = emotion.reshape(1, 1, 1)
        return cls(speaker.detach().float().reshape(1, -1), tokens, emotion)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are not None, by name."""
        pairs = {
            "speaker_emb": self.speaker_emb,
            "cond_prompt_speech_tokens": self.cond_prompt_speech_tokens,
            "emotion_adv": self.emotion_adv,
        }
        return {name: value for name, value in pairs.items() if value is not None}

    def with_emotion(self, exaggeration: float) -> T3Conditionals:
        """The same voice, spoken with another exaggeration.

        Args:
            exaggeration: 0 is flat, 0.5 neutral, above 1 unstable.
        """
        return replace(self, emotion_adv=torch.full((1, 1, 1), float(exaggeration)))

    def fingerprint(self, emotion: bool = True) -> str:
        """A digest of the voice: equal voices have equal digests.

        Args:
            emotion: whether the exaggeration is part of it.
        """
        digest = hashlib.sha256()
        for name, value in self.tensors.items():
            if name == "emotion_adv" and not emotion:
                continue
            flat = value.detach().reshape(-1)
            digest.update(f"{name}:{flat.dtype}:{tuple(value.shape)}:".encode())
            digest.update(flat.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _unfit(problem: str) -> ChatterbexError:
    message = (
        f"The voice does not fit this model: {problem}. It should be the 't3' part of a conds.pt, "
        "or a voice made by this version."
    )
    return ChatterbexError("model_load_failed", message, {"problem": problem})
