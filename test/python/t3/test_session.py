"""Requests that join and leave: each gets the same result as alone, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: no T3 to test")

from speaking import (  # noqa: E402
    Listener,
    Recorded,
    alone,
    cpu_pass,
    gpu_pass,
    request,
    say,
    session_of,
)

from chatterbex.errors import ChatterbexError  # noqa: E402
from chatterbex.t3 import (  # noqa: E402
    T3,
    Sampling,
    T3Conditionals,
    T3Config,
    T3Request,
    T3Session,
)
from chatterbex.t3.native import instruction_sets  # noqa: E402
from synthetic import t3 as synthetic  # noqa: E402

Models = Callable[..., T3]


def crowd(config: T3Config, count: int, seed: int) -> list[T3Request]:
    """Requests of all kinds: different voices, lengths, seeds and sampling, with and without CFG."""
    chance = random.Random(seed)
    requests = []
    for id in range(count):
        sampling = replace(
            config.sampling,
            temperature=chance.choice([0.0, 0.5, 0.8, 1.0]),
            top_p=chance.choice([0.8, 0.95, 1.0]),
            repetition_penalty=chance.choice([1.0, 1.2, 1.5]),
        )
        requests.append(
            request(
                config,
                id,
                text=chance.randrange(1, 90),
                voice=chance.randrange(5),
                prompt=chance.choice([20, 60, 100, 140, 180]),
                seed=chance.randrange(2**40),
                sampling=sampling,
                cfg_weight=chance.choice([0.0, 0.5, 0.7]) if config.guided else None,
                max_tokens=chance.randrange(1, 40),
                detect_runaway=chance.random() < 0.5,
            )
        )
    return requests


def in_company(session: T3Session, requests: list[T3Request], seed: int, cancelled: set[Any]) -> Listener:
    """Speaks requests that come, and are cancelled, at random moments."""
    chance = random.Random(seed)
    waiting, listener = list(requests), Listener(session)
    while waiting or session.busy:
        if waiting and not session.full and (not session.busy or chance.random() < 0.25):
            session.admit(waiting.pop(0))
        victims = [id for id in session.live if id in cancelled and chance.random() < 0.1]
        for id in victims:
            session.cancel(id)
        for event in listener.step():
            assert event.id not in victims
    return listener


class TestCompany:
    """The tokens of a request do not depend on other requests."""

    @pytest.mark.parametrize("name", ["english", "multilingual_v3", "turbo", "nano"])
    @pytest.mark.parametrize(("threads", "seed"), [(1, 0), (2, 1), (3, 2)])
    def test_bit_for_bit_the_same_joined_at_random(
        self, name: str, threads: int, seed: int, model: Models
    ) -> None:
        config = synthetic.tiny(name)
        t3 = model(config)
        requests = crowd(config, 10, seed)
        expected = {one.id: alone(t3, one) for one in requests}
        cancelled = {3, 7}
        listener = in_company(session_of(t3, 8, threads=threads), requests, seed, cancelled)
        for one in requests:
            drawn = listener.drawn.get(one.id, [])
            if one.id in cancelled:
                assert drawn == expected[one.id][: len(drawn)]
            else:
                assert drawn == expected[one.id], one
        assert not listener.session.busy

    @pytest.mark.parametrize("name", ["english", "turbo"])
    def test_logits_are_identical_with_every_instruction_set(self, name: str, model: Models) -> None:
        """At the width of the published models, with 1 to 3 threads that change from step to step."""
        full = synthetic.full(name)
        config = replace(full, layers=1, text_vocab=300, positions=600)
        config = replace(config, max_text_tokens=200, max_speech_tokens=300)
        t3 = model(config)
        requests = [request(config, id, text=10 + id, seed=id, max_tokens=3) for id in range(3)]

        def logits(instruction_set: str, threads: int) -> list[Any]:
            recorded = Recorded(cpu_pass(t3, 6, threads=threads, instruction_set=instruction_set))
            session = T3Session(t3.front, recorded, 3)
            for one in requests:
                session.admit(one)
            listener = Listener(session)
            while session.busy:
                listener.step(threads=1 + session.stats.steps % threads)
            return recorded.logits

        expected = logits(instruction_sets()[0], 1)
        assert len(expected) > 3
        for instruction_set in instruction_sets():
            given = logits(instruction_set, 3)
            assert all(map(torch.equal, given, expected)), instruction_set

    def test_a_gpus_padded_batch_is_close(self, model: Models) -> None:
        """The order of its sums may depend on the batch, so logits are compared up to rounding."""
        config = synthetic.tiny("english")
        t3 = model(config)
        requests = [replace(one, max_tokens=20) for one in crowd(config, 6, 1)]
        for eager in (False, True):
            session = session_of(t3, 8, way=gpu_pass, eager_attention=eager)
            listener = in_company(session, requests, 1, set())
            for one in requests:
                drawn = listener.drawn[one.id]
                assert drawn == alone(t3, one)[: len(drawn)]


class TestSeeds:
    """What makes a speech repeatable."""

    @pytest.mark.parametrize("name", ["english", "nano"])
    def test_a_seed_repeats_and_another_does_not(self, name: str, model: Models) -> None:
        config = synthetic.tiny(name)
        t3 = model(config)
        said = {seed: alone(t3, request(config, seed=seed)) for seed in range(6)}
        assert len({tuple(tokens) for tokens in said.values()}) == 6
        assert said == {seed: alone(t3, request(config, seed=seed)) for seed in range(6)}

    def test_nobody_elses_random_numbers_are_used(self, model: Models) -> None:
        config = synthetic.tiny("nano")
        torch.manual_seed(1)
        before = torch.random.get_rng_state()
        alone(model(config), request(config))
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_two_requests_with_one_seed_are_the_same(self, model: Models) -> None:
        config = synthetic.tiny("nano")
        listener = say(model(config), [request(config, id, seed=5) for id in "ab"])
        assert listener.drawn["a"] == listener.drawn["b"]

    @pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1, -1])
    def test_any_64_bit_seed(self, seed: int, model: Models) -> None:
        config = synthetic.tiny("nano")
        assert len(alone(model(config), request(config, seed=seed, max_tokens=3))) == 3


class TestEnds:
    """How speech ends, and how that is reported."""

    def test_the_limit(self, model: Models) -> None:
        config = synthetic.tiny("turbo")
        listener = say(model(config), [request(config, max_tokens=17)])
        assert listener.ended("a") == "limit"
        assert len(listener.drawn["a"]) == len(listener.events["a"]) == 17
        assert [event.finish_reason for event in listener.events["a"][:-1]] == [None] * 16
        assert listener.events["a"][-1].token == listener.drawn["a"][-1]

    def test_the_models_own_limit(self, model: Models) -> None:
        config = replace(synthetic.tiny("english"), max_speech_tokens=40)
        listener = say(model(config), [request(config, max_tokens=10**9)])
        assert (listener.ended("a"), len(listener.drawn["a"])) == ("limit", 40)

    def test_the_last_position(self, model: Models) -> None:
        config = replace(synthetic.tiny("nano"), positions=100)
        listener = say(model(config), [request(config, text=50, prompt=20, max_tokens=500)])
        # speaker, prompt, text and start: 72 positions are taken
        assert (listener.ended("a"), len(listener.drawn["a"])) == ("limit", 28)

    @pytest.mark.parametrize("name", ["english", "nano"])
    def test_the_stop_token(self, name: str, weights: Callable[..., Any]) -> None:
        config = synthetic.tiny(name)
        greedy = replace(config.sampling, temperature=0.0)
        one = request(config, sampling=greedy, cfg_weight=0.0 if config.guided else None)
        drawn = alone(T3.from_state_dict(config, weights(config)), one)
        fifth = drawn.index(drawn[4])  # where it is drawn for the first time
        state = weights(config)
        # the stop token takes that token's place
        for part in ("weight", "bias"):
            if f"speech_head.{part}" in state:
                tensor = state[f"speech_head.{part}"].clone()
                swap = [config.stop_speech, drawn[4]]
                tensor[swap] = tensor[swap[::-1]]
                state[f"speech_head.{part}"] = tensor
        listener = say(T3.from_state_dict(config, state), [one])
        assert listener.ended("a") == "stop"
        assert listener.drawn["a"] == [*drawn[:fifth], config.stop_speech]
        last = listener.events["a"][-1]
        assert (last.token, last.error) == (None, None)
        assert len(listener.events["a"]) == fifth + 1

    def test_a_runaway_by_repetition(self, weights: Callable[..., Any]) -> None:
        config = synthetic.tiny("nano")
        state = weights(config)
        state["speech_head.bias"] = state["speech_head.bias"].clone()
        state["speech_head.bias"][4299] = 1000.0
        t3 = T3.from_state_dict(config, state)
        listener = say(t3, [request(config, max_tokens=200, detect_runaway=True)])
        assert listener.ended("a") == "runaway"
        assert listener.heard("a") == [4299] * 75
        listener = say(t3, [request(config, max_tokens=200, detect_runaway=False)])
        assert listener.ended("a") == "limit"

    @pytest.mark.parametrize("name", ["english", "multilingual_v3"])
    def test_only_ids_that_are_sound_come_out(self, name: str, model: Models) -> None:
        config = synthetic.tiny(name)
        listener = say(model(config), [request(config, max_tokens=120)])
        drawn = listener.drawn["a"]
        assert any(token >= config.speech_codes for token in drawn)
        assert listener.heard("a") == [token for token in drawn if token < config.speech_codes]


class TestCancel:
    """A cancelled request ends at once."""

    def test_no_more_events_and_the_place_is_free(self, model: Models) -> None:
        config = synthetic.tiny("turbo")
        session = session_of(model(config), 2)
        session.admit(request(config, "a"))
        session.admit(request(config, "b"))
        listener = Listener(session)
        for _ in range(6):
            listener.step()
        assert session.full
        session.cancel("a")
        assert not session.full
        assert session.live == ["b"]
        session.admit(request(config, "c", seed=1))
        heard = len(listener.events["a"])
        listener.run()
        assert len(listener.events["a"]) == heard
        assert listener.drawn["b"] == listener.drawn["c"]

    def test_while_its_voice_is_being_read(self, model: Models) -> None:
        config = synthetic.tiny("turbo")
        session = session_of(model(config), 2)
        session.admit(request(config, "a", prompt=200))
        session.step()
        session.cancel("a")
        assert not session.busy
        assert session.step() == []
        session.admit(request(config, "b", prompt=200))
        expected = alone(model(config), request(config, "b", prompt=200))
        assert Listener(session).run().drawn["b"] == expected

    def test_an_unknown_request(self, model: Models) -> None:
        session = session_of(model(synthetic.tiny("turbo")), 2)
        session.cancel("nobody")
        assert not session.busy


class TestSteps:
    """A step is short, whatever requests arrive."""

    def test_reading_in_does_not_stop_the_others(self, model: Models) -> None:
        config = synthetic.tiny("turbo")
        session = session_of(model(config), 3)
        session.admit(request(config, "a", max_tokens=50))
        listener = Listener(session)
        while not listener.events.get("a"):
            listener.step()
        session.admit(request(config, "b", prompt=300, text=100))
        session.admit(request(config, "c", prompt=20, text=5))
        steps = 0
        while not listener.events.get("b"):
            said = len(listener.events["a"])
            listener.step()
            assert len(listener.events["a"]) == said + 1
            steps += 1
        # 301 positions of voice and 101 of text, 64 at a time
        assert steps == 5 + 2

    def test_the_first_token_comes_with_the_last_piece(self, model: Models) -> None:
        config = synthetic.tiny("nano")
        session = session_of(model(config), 1)
        session.admit(request(config, prompt=20, text=20))
        assert session.step() == []
        assert len(session.step()) == 1
        assert len(session.step()) == 1


class TestVoices:
    """A voice that was used is not read again."""

    def test_it_is_read_once_and_the_tokens_are_the_same(self, model: Models) -> None:
        config = synthetic.tiny("english")
        t3 = model(config)
        session = session_of(t3, 2)
        ones = [request(config, id, seed=9, voice=voice) for id, voice in enumerate([1, 2, 1, 1])]
        listener = Listener(session)
        for one in ones:
            session.admit(one)
            listener.run()
        assert (session.stats.voices_read, session.stats.voices_kept) == (2, 2)
        for one in ones:
            assert listener.drawn[one.id] == alone(t3, one)

    def test_another_exaggeration_is_another_voice(self, model: Models) -> None:
        config = synthetic.tiny("english")
        session = session_of(model(config), 2)
        one = request(config)
        session.admit(one)
        session.admit(replace(one, id="b", conditionals=one.conditionals.with_emotion(0.9)))
        Listener(session).run()
        assert session.stats.voices_read == 2

    def test_but_not_for_a_model_without_emotion(self, model: Models) -> None:
        config = synthetic.tiny("nano")
        session = session_of(model(config), 2)
        one = request(config)
        session.admit(one)
        session.admit(replace(one, id="b", conditionals=one.conditionals.with_emotion(0.9)))
        Listener(session).run()
        assert session.stats.voices_read == 1

    def test_memory_does_not_grow_with_the_number_of_requests(self, model: Models) -> None:
        config = synthetic.tiny("nano")
        t3 = model(config)
        one_voice = 2 * config.dim * 4 * 21 * config.layers
        session = session_of(t3, 2, voice_cache=3 * one_voice)
        sizes = set()
        for voice in range(12):
            session.admit(request(config, voice=voice, max_tokens=2))
            Listener(session).run()
            sizes.add(session.nbytes)
        assert len(session._voices) == 3
        assert len(sizes) == 3
        assert session.stats.voices_read == 12
        session.admit(request(config, voice=10, max_tokens=2))
        Listener(session).run()
        assert session.stats.voices_read == 12

    def test_without_room_for_voices_it_speaks_all_the_same(self, model: Models) -> None:
        config = synthetic.tiny("english")
        t3 = model(config)
        assert alone(t3, request(config), voice_cache=0) == alone(t3, request(config))

    def test_clear_gives_the_memory_back(self, model: Models) -> None:
        config = synthetic.tiny("english")
        session = session_of(model(config), 2)
        session.admit(request(config))
        Listener(session).run()
        assert session.nbytes > 0
        session.clear()
        assert session.nbytes == 0
        session.admit(request(config))
        assert len(Listener(session).run().drawn["a"]) == 30


class TestSlots:
    """A request gets its own memory; the keys and values of others are never copied."""

    @pytest.mark.parametrize("way", [cpu_pass, gpu_pass])
    def test_a_longer_request_joins(self, way: Any, model: Models) -> None:
        config = synthetic.tiny("turbo")
        t3 = model(config)
        session = session_of(t3, 4, way=way)
        short = request(config, "short", max_tokens=40)
        long = request(config, "long", text=150, prompt=200, max_tokens=200)
        session.admit(short)
        listener = Listener(session)
        for _ in range(10):
            listener.step()
        session.admit(long)
        listener.run()
        assert listener.drawn["short"] == alone(t3, short, way=way)
        assert listener.drawn["long"] == alone(t3, long, way=way)

    @pytest.mark.parametrize("way", [cpu_pass, gpu_pass])
    def test_admitting_needs_no_memory_and_computes_nothing(self, way: Any, model: Models) -> None:
        """Eight callers with new voices arrive between two steps, while one speaks."""
        config = synthetic.tiny("nano")
        recorded = Recorded(way(model(config), 9))
        session = T3Session(model(config).front, recorded, 9)
        session.admit(request(config, "first"))
        Listener(session).step()
        before, steps = session.nbytes, len(recorded.logits)
        for id in range(8):
            session.admit(request(config, id, voice=id, prompt=100))
        assert (session.nbytes, len(recorded.logits)) == (before, steps)

    def test_slots_of_a_gpu_are_allocated_once(self, model: Models) -> None:
        config = synthetic.tiny("turbo")
        session = session_of(model(config), 4, way=gpu_pass)
        session.admit(request(config, 0))
        Listener(session).step()
        place = session._pass._usual.layers[0].data_ptr()
        for id in range(1, 4):
            session.admit(request(config, id, text=100))
        Listener(session).run()
        assert session._pass._usual.layers[0].data_ptr() == place

    def test_a_request_too_long_for_a_slot_gets_its_own(self, model: Models) -> None:
        config = synthetic.tiny("turbo")
        t3 = model(config)
        session = session_of(t3, 2, way=gpu_pass, positions=256)
        short, long = request(config, "short"), request(config, "long", prompt=200, max_tokens=120)
        session.admit(short)
        session.admit(long)
        listener = Listener(session)
        while not listener.events.get("long"):
            listener.step()
        assert [bank.length for bank in session._pass._long] == [1024]
        listener.run()
        assert session._pass._long == []
        assert listener.drawn["short"] == alone(t3, short, way=gpu_pass)
        assert listener.drawn["long"] == alone(t3, long, way=gpu_pass)


class TestRefusals:
    """A request that cannot be spoken is refused on arrival, and leaves no trace."""

    @pytest.fixture
    def refused(self, model: Models) -> Iterator[Callable[..., ChatterbexError]]:
        sessions = []

        def refused(name: str, reason: str, **changes: Any) -> ChatterbexError:
            config = synthetic.tiny(name)
            session = session_of(model(config), 2)
            sessions.append(session)
            with pytest.raises(ChatterbexError) as caught:
                session.admit(replace(request(config), **changes))
            assert caught.value.reason == reason, caught.value
            return caught.value

        yield refused
        for session in sessions:
            assert not session.busy
            assert session.step() == []

    @pytest.mark.parametrize(
        "text",
        [
            [],
            [255],
            [255, 0],
            [1, 2, 0],
            [255, 1, 2],
            [255, 1, 300, 0],
            [255, -1, 0],
            [255, *[1] * 201, 0],
        ],
    )
    def test_text(self, text: list[int], refused: Any) -> None:
        refused("english", "invalid_text", text_tokens=text)

    def test_text_that_does_not_fit_next_to_the_voice(self, model: Models) -> None:
        config = replace(synthetic.tiny("nano"), positions=64)
        session = session_of(model(config), 1)
        with pytest.raises(ChatterbexError, match="room for 41") as caught:
            session.admit(request(config, text=43, prompt=20))
        assert caught.value.reason == "invalid_text"
        session.admit(request(config, text=41, prompt=20))

    @pytest.mark.parametrize(
        "sampling",
        [
            Sampling(temperature=-0.1),
            Sampling(temperature=float("nan")),
            Sampling(temperature=1e-9),
            Sampling(temperature=float("inf")),
            Sampling(top_p=1.1),
            Sampling(top_p=-0.1),
            Sampling(min_p=2.0),
            Sampling(repetition_penalty=0.0),
            Sampling(top_k=-1),
        ],
    )
    def test_sampling(self, sampling: Sampling, refused: Any) -> None:
        refused("english", "invalid_option", sampling=sampling)

    def test_unsupported_options(self, refused: Any) -> None:
        refused("english", "not_supported", sampling=Sampling(top_k=5))
        refused("turbo", "not_supported", sampling=Sampling(min_p=0.1))
        refused("turbo", "not_supported", cfg_weight=0.5)

    @pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
    def test_guidance(self, weight: float, refused: Any) -> None:
        refused("english", "invalid_option", cfg_weight=weight)

    def test_max_tokens(self, refused: Any) -> None:
        refused("nano", "invalid_option", max_tokens=0)

    def test_a_full_batch_and_an_id_in_use(self, model: Models) -> None:
        config = synthetic.tiny("nano")
        session = session_of(model(config), 2)
        session.admit(request(config, "a"))
        with pytest.raises(ChatterbexError) as caught:
            session.admit(request(config, "a"))
        assert caught.value.reason == "invalid_option"
        session.admit(request(config, "b"))
        with pytest.raises(ChatterbexError) as caught:
            session.admit(request(config, "c"))
        assert caught.value.reason == "overloaded"
        assert sorted(Listener(session).run().drawn) == ["a", "b"]


class TestForeignVoices:
    """A voice that does not fit only ends its own request."""

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"speaker_emb": torch.zeros(1, 192)}, "192"),
            ({"emotion_adv": None}, "emotion"),
            ({"cond_prompt_speech_tokens": torch.zeros(1, 500, dtype=torch.long)}, "500"),
        ],
    )
    def test_it_is_refused(self, change: dict[str, Any], said: str, model: Models) -> None:
        config = synthetic.tiny("english")
        t3 = model(config)
        session = session_of(t3, 2)
        good = request(config, "good")
        session.admit(good)
        voice = replace(good.conditionals, **change)
        with pytest.raises(ChatterbexError, match=said) as caught:
            session.admit(replace(good, id="bad", conditionals=voice))
        assert caught.value.reason == "not_supported"
        assert Listener(session).run().drawn == {"good": alone(t3, good)}

    @pytest.mark.parametrize("way", [cpu_pass, gpu_pass])
    def test_numbers_that_are_not_finite_fail_only_their_request(self, way: Any, model: Models) -> None:
        config = synthetic.tiny("english")
        t3 = model(config)
        session = session_of(t3, 3, way=way, voice_cache=0)
        good, bad = request(config, "good"), request(config, "bad", text=150)  # it leaves more behind
        voice = replace(
            bad.conditionals, speaker_emb=torch.full_like(bad.conditionals.speaker_emb, torch.nan)
        )
        session.admit(replace(bad, conditionals=voice))
        session.admit(good)
        listener = Listener(session).run()
        assert listener.ended("bad") == "failed"
        assert listener.events["bad"][-1].error.reason == "generation_failed"
        assert listener.drawn["good"] == alone(t3, good, way=way)
        # and what it left in the cache does not affect later requests
        session.admit(replace(good, id="next"))
        assert Listener(session).run().drawn["next"] == alone(t3, good, way=way)

    def test_speech_tokens_that_the_model_does_not_know(self, model: Models) -> None:
        config = synthetic.tiny("nano")
        session = session_of(model(config), 2)
        one = request(config)
        tokens = torch.tensor([[5, config.speech_vocab]])
        voice = replace(one.conditionals, cond_prompt_speech_tokens=tokens)
        with pytest.raises(ChatterbexError) as caught:
            session.admit(replace(one, conditionals=voice))
        assert caught.value.reason == "not_supported"


class TestConditionals:
    """A stored voice."""

    def test_upstreams_mapping(self) -> None:
        config = synthetic.tiny("english")
        values = synthetic.conditionals(config, prompt=7)
        voice = T3Conditionals.from_mapping({**values, "cond_prompt_speech_emb": torch.ones(1, 7, 64)})
        assert {name: tuple(value.shape) for name, value in voice.tensors.items()} == {
            "speaker_emb": (1, 256),
            "cond_prompt_speech_tokens": (1, 7),
            "emotion_adv": (1, 1, 1),
        }
        assert voice.emotion_adv.item() == 0.5
        assert T3Conditionals.from_mapping({**values, "emotion_adv": 0.25}).emotion_adv.item() == 0.25

    @pytest.mark.parametrize(
        "change",
        [
            {"speaker_emb": None},
            {"speaker_emb": [1.0, 2.0]},
            {"speaker_emb": torch.zeros(1, 256, dtype=torch.long)},
            {"speaker_emb": torch.zeros(1, 0)},
            {"cond_prompt_speech_tokens": torch.zeros(1, 7)},
            {"cond_prompt_speech_tokens": [1, 2]},
            {"emotion_adv": torch.zeros(2)},
        ],
    )
    def test_values_that_are_not_voices(self, change: dict[str, Any]) -> None:
        values = synthetic.conditionals(synthetic.tiny("english"))
        with pytest.raises(ChatterbexError) as caught:
            T3Conditionals.from_mapping({**values, **change})
        assert caught.value.reason == "model_load_failed"

    def test_fingerprints(self) -> None:
        config = synthetic.tiny("english")
        voice, other = (T3Conditionals.from_mapping(synthetic.conditionals(config, seed)) for seed in (1, 2))
        again = T3Conditionals.from_mapping(synthetic.conditionals(config, 1))
        assert voice.fingerprint() == again.fingerprint() != other.fingerprint()
        louder = voice.with_emotion(0.6)
        assert louder.fingerprint() != voice.fingerprint()
        assert louder.fingerprint(emotion=False) == voice.fingerprint(emotion=False)
        assert replace(voice, cond_prompt_speech_tokens=None).fingerprint() != voice.fingerprint()
