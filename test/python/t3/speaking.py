"""Helpers that speak with a session and collect its events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from chatterbex.t3 import (
    T3,
    Body,
    Sampling,
    T3Conditionals,
    T3Config,
    T3CpuPass,
    T3GpuPass,
    T3Request,
    T3Session,
    TokenEvent,
    rows_of_request,
)
from synthetic import t3 as synthetic


def request(
    config: T3Config,
    id: Any = "a",
    text: int = 20,
    voice: int = 0,
    prompt: int = 20,
    seed: int = 1,
    **options: Any,
) -> T3Request:
    """A request with random text and voice, by default of 30 tokens."""
    values = synthetic.conditionals(config, voice, prompt)
    options = {"max_tokens": 30, "detect_runaway": False, **options}
    return T3Request(
        id,
        synthetic.text_tokens(config, text, seed=text),
        T3Conditionals.from_mapping(values),
        seed,
        **options,
    )


class Listener:
    """Drives a session and keeps its tokens and events, by request."""

    def __init__(self, session: T3Session) -> None:
        self.session = session
        self.drawn: dict[Any, list[int]] = {}
        self.events: dict[Any, list[TokenEvent]] = {}

    def step(self, **options: Any) -> list[TokenEvent]:
        """One step."""
        running = {id: self.session._live[id].sampler for id in self.session.live}
        events = self.session.step(**options)
        for event in events:
            self.events.setdefault(event.id, []).append(event)
        for id, sampler in running.items():
            self.drawn[id] = list(sampler.drawn)
        return events

    def run(self) -> Listener:
        """Runs until nobody speaks."""
        while self.session.busy:
            self.step()
        return self

    def ended(self, id: Any) -> str | None:
        """How a request ended."""
        return self.events[id][-1].finish_reason

    def heard(self, id: Any) -> list[int]:
        """The tokens that came out."""
        return [event.token for event in self.events.get(id, []) if event.token is not None]


def gpu_pass(t3: T3, rows: int, **options: Any) -> T3GpuPass:
    """The pass for GPUs, on CPU tensors."""
    return T3GpuPass(Body.of(t3.config, t3.weights), rows, **options)


def cpu_pass(t3: T3, rows: int, threads: int = 1, **options: Any) -> T3CpuPass:
    """The pass for the CPU."""
    return T3CpuPass(t3, rows, threads=threads, **options)


def session_of(
    t3: T3, max_batch: int, way: Any = cpu_pass, voice_cache: int | None = None, **options: Any
) -> T3Session:
    """A session for `max_batch` requests, with its own pass."""
    limits = {} if voice_cache is None else {"voice_cache": voice_cache}
    return T3Session(
        t3.front, way(t3, max_batch * rows_of_request(t3.config), **options), max_batch, **limits
    )


class Recorded:
    """A pass that keeps the logits that it returned, one (rows, V) for each call."""

    def __init__(self, way: Any) -> None:
        self._way = way
        self.logits: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._way, name)

    def read(self, slots: Any, x: Any, want: bool) -> Any:
        """As the pass does."""
        logits = self._way.read(slots, x, want)
        if logits is not None:
            self.logits.append(logits.clone())
        return logits

    def step(self, slots: Any, tokens: Any, steps: Any) -> Any:
        """As the pass does."""
        logits = self._way.step(slots, tokens, steps)
        self.logits.append(logits.clone())
        return logits


def alone(t3: T3, one: T3Request, **options: Any) -> list[int]:
    """All ids that a request draws in its own session."""
    session = session_of(t3, 1, **options)
    session.admit(one)
    return Listener(session).run().drawn[one.id]


def say(t3: T3, requests: Iterable[T3Request], **options: Any) -> Listener:
    """Speaks requests that come at the same time."""
    requests = list(requests)
    session = session_of(t3, len(requests), **options)
    for one in requests:
        session.admit(one)
    return Listener(session).run()


def upstream_draws(
    upstream: Any, published: Any, config: T3Config, one: T3Request, **changes: Any
) -> list[int]:
    """All ids that upstream draws for the same request."""
    ids = torch.tensor([list(one.text_tokens)])
    voice = one.conditionals
    condition = upstream.condition({"speaker_emb": voice.speaker_emb, **voice.tensors})
    sampling: Sampling = one.sampling or config.sampling
    options = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "repetition_penalty": sampling.repetition_penalty,
    }
    torch.manual_seed(one.seed)
    if config.backbone == "gpt2":
        options.update(top_k=sampling.top_k, max_gen_len=one.max_tokens - 1)
        options.update(changes)
        drawn = published.inference_turbo(t3_cond=condition, text_tokens=ids, **options)
        if drawn.shape[1] <= options["max_gen_len"]:  # it ended by a stop token, which upstream cuts off
            return [*drawn[0].tolist(), config.stop_speech]
    else:
        weight = config.cfg_weight if one.cfg_weight is None else one.cfg_weight
        options.update(min_p=sampling.min_p, max_new_tokens=one.max_tokens, cfg_weight=weight)
        options.update(changes)
        both = torch.cat([ids, ids]) if options["cfg_weight"] > 0 else ids
        drawn = published.inference(t3_cond=condition, text_tokens=both, **options)
    return drawn[0].tolist()


def greedy(config: T3Config, penalty: float | None = None) -> Sampling:
    """The likeliest token after the repetition penalty."""
    changes = {} if penalty is None else {"repetition_penalty": penalty}
    return replace(config.sampling, temperature=0.0, **changes)


def upstream_greedy(
    upstream: Any, published: Any, config: T3Config, one: T3Request, **changes: Any
) -> list[int]:
    """All ids that upstream draws if it always draws the likeliest."""
    if config.backbone == "llama":
        cold = {"temperature": 1.0, "min_p": 1.0}
    else:
        cold = {"temperature": 1e-4, "top_k": 0, "top_p": 1.0}
    return upstream_draws(upstream, published, config, one, **cold, **changes)
