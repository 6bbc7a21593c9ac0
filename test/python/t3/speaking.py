"""Helpers that speak with a session and listen to what comes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from chatterbex.t3 import T3, Sampling, T3Conditionals, T3Config, T3Request, T3Session, TokenEvent
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
    """A request with random text and voice, of 30 tokens unless told otherwise."""
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
    """Drives a session and keeps what it drew and said, by request."""

    def __init__(self, session: T3Session) -> None:
        self.session = session
        self.drawn: dict[Any, list[int]] = {}
        self.events: dict[Any, list[TokenEvent]] = {}

    def step(self, **options: Any) -> list[TokenEvent]:
        """One step."""
        running = {id: self.session._order.live[id].sampler for id in self.session.live}
        events = self.session.step(**options)
        for event in events:
            self.events.setdefault(event.id, []).append(event)
        for id, sampler in running.items():
            self.drawn[id] = list(sampler.drawn)
        return events

    def run(self) -> Listener:
        """Until nobody speaks."""
        while self.session.busy:
            self.step()
        return self

    def ended(self, id: Any) -> str | None:
        """How a request ended."""
        return self.events[id][-1].finish_reason

    def heard(self, id: Any) -> list[int]:
        """The tokens that came out."""
        return [event.token for event in self.events.get(id, []) if event.token is not None]


def alone(t3: T3, one: T3Request, **options: Any) -> list[int]:
    """All ids that a request draws in a session of its own."""
    session = T3Session(t3, 1, **options)
    session.admit(one)
    return Listener(session).run().drawn[one.id]


def say(t3: T3, requests: Iterable[T3Request], **options: Any) -> Listener:
    """Speaks requests that come at the same time."""
    requests = list(requests)
    session = T3Session(t3, len(requests), **options)
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
    else:
        weight = config.cfg_weight if one.cfg_weight is None else one.cfg_weight
        options.update(min_p=sampling.min_p, max_new_tokens=one.max_tokens, cfg_weight=weight)
        options.update(changes)
        both = torch.cat([ids, ids]) if options["cfg_weight"] > 0 else ids
        drawn = published.inference(t3_cond=condition, text_tokens=both, **options)
    return drawn[0].tolist()
