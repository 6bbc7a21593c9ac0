"""A model of the shape of Chatterbox, small enough to be run hundreds of times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from chatterbex.device import Runtime
from chatterbex.device.choice import Choice

VOCABULARY = 24
STOP = VOCABULARY - 1
HOP = 4


@lru_cache(100)
def get_resampler(source: int, target: int, device: str) -> Tensor:
    """As upstream's: kept by device, in a cache that no `.to` reaches."""
    return torch.linspace(0, 1, source // target, device=device)


@dataclass(frozen=True)
class T3Voice:
    """A voice for T3; `.to` gives another one."""

    speaker: Tensor
    prompt: Tensor

    def to(self, device: str) -> T3Voice:
        """The same on another device."""
        return replace(self, speaker=self.speaker.to(device), prompt=self.prompt.to(device))


class T3(nn.Module):
    """Text tokens to speech tokens, one a step, with keys and values written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.speaker = nn.Linear(8, 16)
        self.attention = nn.Linear(16, 48)
        self.head = nn.Linear(16, VOCABULARY)
        self.register_buffer("bias", torch.zeros(VOCABULARY).index_fill(0, torch.tensor([STOP]), -9.0))

    def begin(self, text: list[int], voice: T3Voice) -> dict[str, Any]:
        """What a request has while it runs."""
        device = self.embedding.weight.device
        tokens = torch.tensor([text], device=device)
        prefix = torch.cat([voice.prompt, tokens], dim=1)
        state = {"cache": torch.zeros(2, 1, 64, 16, device=device), "length": 0, "speaker": voice.speaker}
        self.feed(prefix, state)
        return state

    def feed(self, tokens: Tensor, state: dict[str, Any]) -> Tensor:
        """Logits after some tokens."""
        x = self.embedding(tokens) + self.speaker(state["speaker"])[:, None]
        query, key, value = self.attention(x).chunk(3, dim=-1)
        first, last = state["length"], state["length"] + tokens.shape[1]
        state["cache"][0, :, first:last] = key
        state["cache"][1, :, first:last] = value
        keys, values = state["cache"][:, :, :last].unbind(0)
        seen = functional.scaled_dot_product_attention(query, keys, values)
        state["length"] = last
        return self.head(x[:, -1] + seen[:, -1]) + self.bias


class S3Gen(nn.Module):
    """Speech tokens to sound."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.norm = nn.utils.parametrizations.weight_norm(nn.Conv1d(8, 8, 3, padding=1))
        self.up = nn.ConvTranspose1d(8, 18, HOP, stride=HOP)
        self.register_buffer("fade", torch.linspace(0, 1, 8), persistent=False)
        self.register_buffer("window", torch.hann_window(16), persistent=False)

    def forward(self, tokens: Tensor, voice: dict[str, Any]) -> Tensor:
        """(1, T) to (samples,)."""
        tokens = torch.cat([voice["prompt_token"], tokens], dim=1)
        x = self.embedding(tokens).transpose(1, 2) + voice["embedding"][:, :, None]
        x = self.up(functional.elu(self.norm(x)))
        magnitude, phase = x[:, :9].clamp(max=2).exp(), x[:, 9:].sin()
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        sound = torch.istft(spectrum, 16, HOP, 16, window=self.window)
        sound[:, : self.fade.shape[0]] *= self.fade
        return sound[0] * get_resampler(48, 24, str(tokens.device)).mean()


def components() -> dict[str, Any]:
    """A model's components on the CPU; always the same numbers."""
    torch.manual_seed(11)
    t3, s3gen = T3(), S3Gen()
    voice = T3Voice(torch.randn(1, 8), torch.tensor([[3, 1, 4]]))
    gen = {
        "prompt_token": torch.tensor([[1, 5, 9, 2]]),
        "prompt_feat_len": None,
        "embedding": torch.randn(1, 8),
    }
    return {"conds.gen": gen, "t3": t3.eval(), "s3gen": s3gen.eval(), "conds.t3": voice}


class SmallModel:
    """Speaks with the components, step by step, on a runtime."""

    def __init__(self, device: str, *, parts: dict[str, Any] | None = None, **options: Any) -> None:
        self.device = "cpu"
        self.runtime = Runtime(
            components() if parts is None else parts,
            requested=device,
            after=[self._moved],
            chooser=options.pop("chooser", lambda requested, fallback: Choice(requested, device)),
            **options,
        )

    def _moved(self, device: str) -> None:
        self.device = device

    def start(self, **options: Any) -> SmallModel:
        """Moves to the device and warms up there."""
        self.runtime.start(lambda: self._speak([1, 2], 0, 40), **options)
        return self

    def generate(self, seed: int = 0, text: tuple[int, ...] = (7, 2, 5), most: int = 20) -> Tensor:
        """One request; its sound, on the CPU."""
        sound = self._speak(list(text), seed, most, self.runtime.run)
        self.runtime.after_request()
        return sound

    def _speak(self, text: list[int], seed: int, most: int, run: Any = lambda step, **_: step()) -> Tensor:
        request = _Request(self.runtime.components, text, seed)

        def decode() -> None:
            request.decode()

        with torch.inference_mode():
            while len(request.tokens) < most and not request.done:
                run(decode, component="t3", restart=request.restart)
            # A request that starts anew while it is vocoded has to decode first.
            return run(lambda: request.vocode(most), component="s3gen", restart=request.restart)


class _Request:
    def __init__(self, parts: Any, text: list[int], seed: int) -> None:
        self.parts, self.text, self.seed = parts, text, seed
        self.restart()

    def restart(self) -> None:
        self.state: dict[str, Any] | None = None
        self.tokens: list[int] = []
        self.done = False
        self.random = torch.Generator().manual_seed(self.seed)

    def decode(self) -> None:
        t3 = self.parts["t3"]
        if self.state is None:
            self.state = t3.begin(self.text, self.parts["conds.t3"])
        last = self.tokens[-1] if self.tokens else 0
        logits = t3.feed(torch.tensor([[last]], device=t3.bias.device), self.state)
        noise = torch.rand(VOCABULARY, generator=self.random)
        token = int((logits[0].softmax(-1).cpu() / -noise.log()).argmax())
        self.done = token == STOP
        if not self.done:
            self.tokens.append(token)

    def vocode(self, most: int) -> Tensor:
        while len(self.tokens) < most and not self.done:
            self.decode()
        s3gen = self.parts["s3gen"]
        tokens = torch.tensor([self.tokens or [0]], device=s3gen.fade.device)
        return s3gen(tokens, self.parts["conds.gen"]).cpu()
