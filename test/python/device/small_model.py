"""A model of the shape of Chatterbox, small enough to be run hundreds of times."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from chatterbex.device import Needs, Runtime, Subject, size_of, tolerance
from chatterbex.device.choice import Choice

VOCABULARY = 24
STOP = VOCABULARY - 1
HOP = 4


@dataclass(frozen=True)
class T3Voice:
    """A voice for T3; `.to` returns another one."""

    speaker: Tensor
    prompt: Tensor

    def to(self, device: str) -> T3Voice:
        """The same on another device."""
        return replace(self, speaker=self.speaker.to(device), prompt=self.prompt.to(device))


class T3(nn.Module):
    """Text tokens to speech tokens, one per step, with keys and values written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.speaker = nn.Linear(8, 16)
        self.attention = nn.Linear(16, 48)
        self.head = nn.Linear(16, VOCABULARY)
        self.register_buffer("bias", torch.zeros(VOCABULARY).index_fill(0, torch.tensor([STOP]), -9.0))

    def begin(self, text: list[int], voice: T3Voice) -> dict[str, Any]:
        """The state of a running request."""
        device = self.embedding.weight.device
        voice = voice.to(device)
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
        voice = {name: value.to(tokens.device) for name, value in voice.items()}
        tokens = torch.cat([voice["prompt_token"], tokens], dim=1)
        x = self.embedding(tokens).transpose(1, 2) + voice["embedding"][:, :, None]
        x = self.up(functional.elu(self.norm(x)))
        magnitude, phase = x[:, :9].clamp(max=2).exp(), x[:, 9:].sin()
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        sound = torch.istft(spectrum, 16, HOP, 16, window=self.window)
        sound[:, : self.fade.shape[0]] *= self.fade
        return sound[0]


@dataclass
class Voice:
    """The speaker encoder; it stays on the CPU."""

    t3: T3Voice
    gen: dict[str, Tensor]

    @classmethod
    def made(cls) -> Voice:
        """Always the same one."""
        torch.manual_seed(12)
        gen = {"prompt_token": torch.tensor([[1, 5, 9, 2]]), "embedding": torch.randn(1, 8)}
        return cls(T3Voice(torch.randn(1, 8), torch.tensor([[3, 1, 4]])), gen)


Parts = MutableMapping[str, Any]


def parts() -> Parts:
    """A model's parts on the CPU; always the same numbers."""
    torch.manual_seed(11)
    return {"t3": T3().eval(), "s3gen": S3Gen().eval()}


@dataclass(frozen=True)
class Way:
    """The parts that speak on one device. The code is the same for all devices."""

    parts: Mapping[str, Any]
    batch: int
    voice: Voice

    def speak(self, text: list[int], seed: int, max_tokens: int) -> Tensor:
        """One request, without a runtime."""
        request = Request(lambda: self, text, seed)
        while len(request.tokens) < max_tokens and not request.done:
            request.decode()
        return request.vocode(max_tokens)


class SmallSubject(Subject[Parts, Way]):
    """Builds the small model."""

    def __init__(self, made: Any = parts, row: int = 0) -> None:
        self.made = made
        self.voice = Voice.made()
        self.row = row
        self.loads = 0

    def load(self) -> Parts:
        """Counts how often."""
        self.loads += 1
        return self.made()

    def cpu(self, loaded: Parts) -> Way:
        """The same as for a GPU."""
        return Way(loaded, 1, self.voice)

    def parts(self, loaded: Parts) -> Parts:
        """All of it."""
        return loaded

    def gpu(self, parts: Mapping[str, Any], batch: int, eager_attention: bool) -> Way:
        """Where the parts are."""
        return Way(parts, batch, self.voice)

    def needs(self, parts: Mapping[str, Any]) -> Needs:
        """A mebibyte to work in."""
        return Needs(size_of(dict(parts)), self.row, 2**20)

    @torch.inference_mode()
    def figures(self, way: Way) -> Mapping[str, Tensor]:
        """Logits, and samples of given tokens."""
        state = way.parts["t3"].begin([1, 2], way.voice.t3)
        device = state["cache"].device
        logits = way.parts["t3"].feed(torch.tensor([[3]], device=device), state)
        tokens = torch.tensor([[4, 5, 6, 7]], device=device)
        return {"t3.logits": logits, "s3gen.samples": way.parts["s3gen"](tokens, way.voice.gen)}

    def tolerances(self) -> Mapping[str, float]:
        """Those of a small gain."""
        return {"t3.logits": tolerance(50), "s3gen.samples": tolerance(50)}

    @torch.inference_mode()
    def warm_up(self, way: Way) -> None:
        """Something long."""
        way.speak([1, 2], 0, 40)


class SmallModel:
    """Speaks with the parts, step by step, on a runtime."""

    def __init__(self, device: str, *, subject: SmallSubject | None = None, **options: Any) -> None:
        self.subject = subject or SmallSubject()
        self.changes = 0
        self.runtime = Runtime(
            self.subject,
            requested=device,
            changed=self._changed,
            chooser=options.pop("chooser", lambda requested, fallback: Choice(requested, device)),
            **options,
        )

    def _changed(self) -> None:
        self.changes += 1

    def start(self) -> SmallModel:
        """Moves to the device and warms up there."""
        self.runtime.start(self.subject.load())
        return self

    def generate(self, seed: int = 0, text: tuple[int, ...] = (7, 2, 5), max_tokens: int = 20) -> Tensor:
        """One request; its sound, on the CPU."""
        request = Request(lambda: self.runtime.way, list(text), seed)

        def run(step: Any, component: str) -> Any:
            return self.runtime.run(step, component=component, restart=request.restart)

        with torch.inference_mode():
            while len(request.tokens) < max_tokens and not request.done:
                run(request.decode, "t3")
            # A request that starts again while it is vocoded has to decode first.
            sound = run(lambda: request.vocode(max_tokens), "s3gen")
        self.runtime.after_request()
        return sound


class Request:
    """One text on its way."""

    def __init__(self, way: Any, text: list[int], seed: int) -> None:
        self.way, self.text, self.seed = way, text, seed
        self.restart()

    def restart(self) -> None:
        """Begins again."""
        self.state: dict[str, Any] | None = None
        self.tokens: list[int] = []
        self.done = False
        self.random = torch.Generator().manual_seed(self.seed)

    def decode(self) -> None:
        """One token."""
        t3 = self.way().parts["t3"]
        if self.state is None:
            self.state = t3.begin(self.text, self.way().voice.t3)
        last = self.tokens[-1] if self.tokens else 0
        logits = t3.feed(torch.tensor([[last]], device=t3.bias.device), self.state)
        noise = torch.rand(VOCABULARY, generator=self.random)
        token = int((logits[0].softmax(-1).cpu() / -noise.log()).argmax())
        self.done = token == STOP
        if not self.done:
            self.tokens.append(token)

    def vocode(self, max_tokens: int) -> Tensor:
        """The sound of all tokens."""
        while len(self.tokens) < max_tokens and not self.done:
            self.decode()
        s3gen = self.way().parts["s3gen"]
        tokens = torch.tensor([self.tokens or [0]], device=s3gen.fade.device)
        return s3gen(tokens, self.way().voice.gen).cpu()
