"""Sizes, special tokens and defaults of the T3 models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..errors import ChatterbexError

Backbone = Literal["llama", "gpt2"]

# Every published T3 has heads of this size, so a checkpoint's tensors show how many heads it has.
HEAD_DIM = 64

# The prefixes of their layers' tensor names, and the models that have them.
_LAYERS: dict[Backbone, str] = {"llama": "tfmr.layers.", "gpt2": "tfmr.h."}
_MODELS: dict[Backbone, str] = {"llama": "english or multilingual", "gpt2": "turbo or nano"}

# Text and speech tokens may not take more positions than this, whatever a checkpoint could hold.
_ROPE_POSITIONS = 8192


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding; long wavelengths are stretched as in Llama 3."""

    theta: float = 500_000.0
    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_positions: int = 8192


@dataclass(frozen=True)
class Sampling:
    """How one token is drawn from the logits.

    Attributes:
        temperature: 0 is greedy: the most likely token after the repetition penalty.
        repetition_penalty: a value above 1 makes tokens that were already spoken less likely.
        top_p: nucleus; 1 keeps all.
        min_p: floor relative to the most likely token; 0 keeps all. Llama models only.
        top_k: number of tokens kept; 0 keeps all. GPT-2 models only.
    """

    temperature: float = 0.8
    repetition_penalty: float = 1.2
    top_p: float = 1.0
    min_p: float = 0.0
    top_k: int = 0


@dataclass(frozen=True)
class T3Config:
    """The sizes and special tokens of one T3.

    Attributes:
        backbone: kind of transformer.
        layers: number of its layers.
        dim: width of the hidden state.
        heads: attention heads; `dim` is divisible by it.
        ffn: width inside the feed-forward part.
        positions: most positions of one sequence (conditioning, text and speech together).
        text_vocab: number of text token ids.
        speech_vocab: number of speech token ids.
        start_text: id that must begin the text, or None if the model has none.
        stop_text: id that must end the text, or None.
        start_speech: id that the speech begins with.
        stop_speech: id that ends it.
        speech_codes: ids below this are sound; the vocoder does not know any others.
        max_text_tokens: most text tokens of one request, start and stop not counted.
        max_speech_tokens: most speech tokens of one request.
        learned_positions: text and speech have learned position embeddings of their own.
        perceiver_queries: length to which the perceiver condenses the voice's speech prompt;
            0 if the prompt is used unchanged.
        perceiver_heads: attention heads of the perceiver.
        emotion: the model takes an emotion (exaggeration) value.
        speaker_dim: size of a speaker embedding.
        speech_starts: how often the start-of-speech embedding comes before the speech.
        rope: rotary embedding of the Llama backbone.
        norm_eps: epsilon of the norms.
        sampling: defaults of a request.
        cfg_weight: default weight of classifier-free guidance; 0 if the model has none.
    """

    backbone: Backbone
    layers: int
    dim: int
    heads: int
    ffn: int
    positions: int
    text_vocab: int
    speech_vocab: int
    start_text: int | None
    stop_text: int | None
    learned_positions: bool
    perceiver_queries: int
    emotion: bool
    speech_starts: int
    start_speech: int = 6561
    stop_speech: int = 6562
    speech_codes: int = 6561
    max_text_tokens: int = 2048
    max_speech_tokens: int = 4096
    perceiver_heads: int = 4
    speaker_dim: int = 256
    rope: Rope = field(default_factory=Rope)
    norm_eps: float = 1e-5
    sampling: Sampling = field(default_factory=Sampling)
    cfg_weight: float = 0.0

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        return self.dim // self.heads

    @property
    def guided(self) -> bool:
        """Whether the model supports classifier-free guidance."""
        return self.backbone == "llama"

    @property
    def text_positions(self) -> int:
        """Rows of the learned text position embedding."""
        return self.max_text_tokens + 2

    @property
    def speech_positions(self) -> int:
        """Rows of the learned speech position embedding."""
        return self.max_speech_tokens + 4

    @classmethod
    def english(cls) -> T3Config:
        """The first Chatterbox: Llama, 30 layers of 1024."""
        return cls(
            backbone="llama",
            layers=30,
            dim=1024,
            heads=16,
            ffn=4096,
            positions=_ROPE_POSITIONS,
            text_vocab=704,
            speech_vocab=8194,
            start_text=255,
            stop_text=0,
            learned_positions=True,
            perceiver_queries=32,
            emotion=True,
            speech_starts=2,
            sampling=Sampling(min_p=0.05),
            cfg_weight=0.5,
        )

    @classmethod
    def multilingual(cls) -> T3Config:
        """Both multilingual checkpoints, v2 and v3, and the language packs."""
        return replace(cls.english(), text_vocab=2454)

    @classmethod
    def turbo(cls) -> T3Config:
        """Chatterbox Turbo: GPT-2 medium."""
        return cls(
            backbone="gpt2",
            layers=24,
            dim=1024,
            heads=16,
            ffn=4096,
            positions=8196,
            text_vocab=50276,
            speech_vocab=6563,
            start_text=None,
            stop_text=None,
            learned_positions=False,
            perceiver_queries=0,
            emotion=False,
            speech_starts=1,
            sampling=Sampling(top_k=1000, top_p=0.95),
        )

    @classmethod
    def nano(cls) -> T3Config:
        """Chatterbox Nano: GPT-2 small."""
        return replace(cls.turbo(), layers=12, dim=768, heads=12, ffn=3072)

    def fitted_to(self, state: Mapping[str, Any]) -> T3Config:
        """This configuration with the sizes of a checkpoint's tensors.

        This is for fine-tunes with more text tokens, and for checkpoints smaller than the published
        ones. Sizes that the tensors do not show are kept. Loading reports tensors that do not fit.

        Args:
            state: tensors by name, as for `T3.from_state_dict`.

        Raises:
            ChatterbexError: The checkpoint is of a T3 with the other backbone ("model_load_failed").
        """
        other: Backbone = "gpt2" if self.backbone == "llama" else "llama"
        if any(name.startswith(_LAYERS[other]) for name in state):
            raise ChatterbexError(
                "model_load_failed",
                f"It holds the T3 of {_MODELS[other]}, and this model needs one of {_MODELS[self.backbone]}. "
                "Load it as the model that it was made from.",
                {"backbone": other, "wanted": self.backbone},
            )
        stem = _LAYERS[self.backbone]
        layers = {name.split(".")[2] for name in state if name.startswith(stem)}
        first = f"{stem}0.mlp.{'gate_proj' if self.backbone == 'llama' else 'c_fc'}.weight"
        if not layers or first not in state or "text_emb.weight" not in state:
            return self
        text_vocab, dim = state["text_emb.weight"].shape
        up = state[first].shape
        changes: dict[str, Any] = {
            "layers": len(layers),
            "dim": dim,
            "heads": max(1, dim // HEAD_DIM),
            "ffn": up[0] if self.backbone == "llama" else up[1],
            "text_vocab": text_vocab,
        }
        if "speech_emb.weight" in state:
            changes["speech_vocab"] = state["speech_emb.weight"].shape[0]
        if "tfmr.wpe.weight" in state:
            changes["positions"] = state["tfmr.wpe.weight"].shape[0]
        queries = state.get("cond_enc.perceiver.pre_attention_query")
        if self.perceiver_queries and queries is not None:
            changes["perceiver_queries"] = queries.shape[1]
        return replace(self, **changes)
