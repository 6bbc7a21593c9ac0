"""The built-in voice, by its numbers and by ear."""

from __future__ import annotations

import importlib.metadata
import random
import re
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hibari import Hibari

import recognition
from chatterbex import readable, registry
from chatterbex.errors import ChatterbexError
from chatterbex.model import Chunk, Failure, Model, Request, samples
from chatterbex.models import hibari
from chatterbex.models.hibari import HibariModel
from driving import Driver

SENTENCES = [
    "The weather is nice today.",
    "Please open the window before you leave.",
    "He went to the store to buy some bread and milk.",
    "Can you tell me what time it is?",
    "She has been working at the hospital for many years.",
    "The children played in the park until dark.",
    "The president said that the economy is growing.",
    "My brother lives in a house near the river.",
    "The train will arrive in about ten minutes.",
    "This is one of the most important questions of our time.",
]
TEXT = " ".join(SENTENCES[:3])


def finish(loading: Generator[str, None, Model]) -> Model:
    while True:
        try:
            next(loading)
        except StopIteration as stop:
            return stop.value


@pytest.fixture(scope="module")
def voice() -> Hibari:
    """A loaded voice, for all tests of this module."""
    return finish(HibariModel.load({}))._voice


class Loaded(HibariModel):
    """The model, with the voice that is loaded already."""

    shared: Hibari

    @classmethod
    def load(cls, options: Mapping[str, Any]) -> Generator[str, None, HibariModel]:
        yield "again"
        return cls(cls.shared, options)


@pytest.fixture
def model(voice: Hibari) -> HibariModel:
    return HibariModel(voice, {})


@pytest.fixture
def speaker(driver: Driver, voice: Hibari) -> tuple[Driver, int]:
    """An engine with the voice loaded, and the model's id."""
    Loaded.shared = voice
    registry.register("hibari", f"{__name__}:Loaded")
    return driver, driver.load("hibari")


def say(model: HibariModel, text: str, id: int = 1, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Speaks a text alone; an error is raised."""
    model.admit(Request(id, text, False, {"seed": 1, **options}))
    parts: list[np.ndarray] = []
    while model.busy():
        for outcome in model.step():
            if isinstance(outcome, Failure):
                raise outcome.error
            assert isinstance(outcome, Chunk)
            parts.append(outcome.samples)
            last = outcome
    assert last.last
    return np.concatenate(parts), last.metadata


class TestLoading:
    def test_phases(self) -> None:
        assert list(HibariModel.load({})) == ["import", "model", "warmup"]

    def test_through_the_engine(self, driver: Driver) -> None:
        info = driver.payload(driver.load("hibari", device="auto"), "loaded")
        assert set(info["load"]) == {"import", "model", "warmup"}
        assert info["sample_rate"] == 24_000
        assert info["device"] == {"requested": "auto", "actual": "cpu", "reason": None}
        assert info["versions"]["hibari-tts"] == importlib.metadata.version("hibari-tts")
        assert info["voices"] == ["heart"]

    def test_warm_up_leaves_nothing_for_the_first_request(
        self, voice: Hibari, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import builtins

        import onnxruntime

        real = builtins.open

        def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
            assert "hibari" not in str(path), f"{path} is read only now"
            return real(path, *args, **kwargs)

        monkeypatch.setattr(builtins, "open", refuse)
        monkeypatch.setattr(onnxruntime, "InferenceSession", None)
        audio, _ = say(HibariModel(voice, {}), "The zorblaxian frumiously quilped.")
        assert audio.size

    @pytest.mark.parametrize("threads", [None, 1, 2])
    def test_threads(self, threads: int | None) -> None:
        model = finish(HibariModel.load({"threads": threads}))
        assert isinstance(model, HibariModel)
        assert model._voice.sess.get_session_options().intra_op_num_threads == (threads or 1)

    @pytest.mark.parametrize("device", ["mps", "cuda", "cuda:1"])
    def test_falls_back_to_the_cpu_and_says_why(self, voice: Hibari, device: str) -> None:
        for fallback in ({}, {"fallback": True}, {"fallback": None}):
            options = {"device": device, **fallback}
            hibari._check_device(options)
            about = HibariModel(voice, options).info()["device"]
            assert about == {
                "requested": device,
                "actual": "cpu",
                "reason": "the hibari voice runs on the CPU only",
            }

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"device": "mps", "fallback": False}, "device_unavailable"),
            ({"device": "cuda:1", "fallback": False}, "device_unavailable"),
            ({"device": "tpu"}, "invalid_option"),
            ({"device": "cuda:x"}, "invalid_option"),
            ({"device": "cpu\n"}, "invalid_option"),
            ({"device": 5}, "invalid_option"),
            ({"threads": 0}, "invalid_option"),
            ({"threads": "2"}, "invalid_option"),
            ({"threads": True}, "invalid_option"),
            ({"max_batch": 0}, "invalid_option"),
        ],
    )
    def test_refusals(self, driver: Driver, options: dict[str, Any], reason: str) -> None:
        name, payload = driver.ask("load", model="hibari", options=options)
        assert (name, payload["reason"]) == ("failed", reason)

    @pytest.mark.parametrize("device", ["auto", "cpu", None])
    def test_the_cpu_without_fallback(self, voice: Hibari, device: str | None) -> None:
        options = {"device": device, "fallback": False, "max_batch": 3}
        hibari._check_device(options)
        model = HibariModel(voice, options)
        assert model.info()["device"]["reason"] is None
        assert model.max_batch == 3


class TestAudio:
    def test_matches_hibari_itself(self, model: HibariModel) -> None:
        upstream = Hibari()
        for text in (TEXT, "Dr. Smith paid $9.99 at 7:30 pm on 10/12/2019.\n\nHe left: alone."):
            audio, _ = say(model, text, seed=5, speed=1.25)
            np.testing.assert_array_equal(audio, upstream(text, speed=1.25, seed=5))

    def test_form(self, model: HibariModel) -> None:
        audio, _ = say(model, TEXT)
        assert audio.dtype == np.float32
        assert audio.flags.c_contiguous
        assert audio.ndim == 1
        assert np.isfinite(audio).all()
        assert 0.05 < np.abs(audio).max() <= 1

    def test_is_clipped(self, model: HibariModel, monkeypatch: pytest.MonkeyPatch) -> None:
        loud = np.array([[-3, 0.5, 3]], np.float64)
        monkeypatch.setattr(model._voice, "from_ids", lambda *_: loud)
        audio, _ = say(model, "Hello.")
        np.testing.assert_array_equal(audio, np.array([-1, 0.5, 1], np.float32))

    def test_numbers_that_are_not_finite_fail(
        self, model: HibariModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model._voice, "from_ids", lambda *_: np.array([0, np.nan]))
        with pytest.raises(ChatterbexError) as caught:
            say(model, "Hello.")
        assert caught.value.reason == "generation_failed"

    def test_metadata(self, model: HibariModel) -> None:
        audio, metadata = say(model, TEXT, seed=7, speed=2)
        spent = metadata.pop("generation_ms")
        assert spent > 0
        assert metadata.pop("rtf") == pytest.approx(spent / 1000 / (audio.size / 24_000))
        assert metadata == {"model": "hibari", "voice": "heart", "seed": 7, "speed": 2.0, "sentences": 3}

    def test_speed(self, model: HibariModel) -> None:
        sizes = [say(model, TEXT, speed=speed)[0].size for speed in (0.5, 1, 1.0, None, 2.0)]
        assert sizes[0] > sizes[1] == sizes[2] == sizes[3] > sizes[4]

    def test_seed(self, model: HibariModel) -> None:
        one, again, other = (say(model, TEXT, seed=seed)[0] for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert not np.array_equal(one, other)

    @pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63)])
    def test_any_seed(self, model: HibariModel, seed: int) -> None:
        audio, metadata = say(model, "Hello.", seed=seed)
        assert audio.size
        assert metadata["seed"] == seed

    def test_does_not_depend_on_the_batch(self, speaker: tuple[Driver, int]) -> None:
        driver, model = speaker
        texts = [" ".join(SENTENCES[n : n + 1 + n % 4]) for n in range(8)]
        alone = []
        for n, text in enumerate(texts):
            _, payload = driver.ask("generate", model_id=model, text=text, options={"seed": n})
            alone.append(payload["samples"])
        chance = random.Random(3)
        together = []
        for n, text in enumerate(texts):
            together.append(driver.say(model, text, seed=n))
            for _ in range(chance.randrange(3)):
                driver.step()
        stranger = driver.say(model, TEXT * 5)
        driver.step()
        driver.engine.cancel(stranger)
        driver.run()
        for expected, id in zip(alone, together, strict=True):
            np.testing.assert_array_equal(driver.payload(id, "done")["samples"], expected)

    def test_a_joined_stream_is_the_whole(self, speaker: tuple[Driver, int]) -> None:
        driver, model = speaker
        text = f"{TEXT} ... And then: \N{GRINNING FACE}!"
        whole, stream = driver.say(model, text), driver.say(model, text, stream=True)
        driver.run()
        chunks = [payload for name, payload, _ in driver.events[stream] if name == "chunk"]
        assert [chunk["metadata"] for chunk in chunks] == [{"sentence": n} for n in range(3)] + [
            chunks[3]["metadata"]
        ]
        done = driver.payload(whole, "done")
        np.testing.assert_array_equal(np.concatenate([chunk["samples"] for chunk in chunks]), done["samples"])
        assert done["metadata"]["sentences"] == 4
        assert driver.payload(stream, "done")["metadata"]["sentences"] == 4

    def test_nothing_to_say_at_the_end(self, speaker: tuple[Driver, int]) -> None:
        driver, model = speaker
        id = driver.say(model, "Hello there.\n\n...\n\n...", stream=True)
        driver.run()
        assert driver.names(id) == ["started", "chunk", "done"]
        assert driver.payload(id, "done")["metadata"]["sentences"] == 1


class TestSteps:
    def test_one_sentence_each_in_turn(self, model: HibariModel) -> None:
        for id in (1, 2, 3):
            model.admit(Request(id, TEXT, True, {"seed": 1}))
        order = []
        while model.busy():
            [chunk] = model.step()
            assert isinstance(chunk, Chunk)
            order.append((chunk.request_id, chunk.last))
        assert order == [(id, n == 2) for n in range(3) for id in (1, 2, 3)]

    def test_later_sentences_are_not_read_yet(
        self, model: HibariModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[str] = []
        real = model._voice.g2p
        monkeypatch.setattr(model._voice, "_g2p", lambda text: (read.append(text), real(text))[1])
        model.admit(Request(1, f"{TEXT} " * 100, True, {"seed": 1}))
        assert read == []
        model.step()
        assert read == SENTENCES[:1]
        model.cancel(1)

    def test_cancel(self, model: HibariModel) -> None:
        for id in (1, 2):
            model.admit(Request(id, TEXT, True, {"seed": 1}))
        model.step()
        model.cancel(1)
        model.cancel(1)
        model.cancel(77)
        ids = set()
        while model.busy():
            ids |= {outcome.request_id for outcome in model.step()}
        assert ids == {2}
        assert model.step() == []

    def test_a_failure_is_one_request_s(self, model: HibariModel, monkeypatch: pytest.MonkeyPatch) -> None:
        real = model._voice.g2p

        def read(text: str) -> str:
            if "bread" in text:
                raise KeyError("no bread")
            return real(text)

        monkeypatch.setattr(model._voice, "_g2p", read)
        model.admit(Request(1, TEXT, True, {"seed": 1}))
        model.admit(Request(2, SENTENCES[3], True, {"seed": 1}))
        outcomes = []
        while model.busy():
            outcomes += model.step()
        kinds = [(type(outcome), outcome.request_id) for outcome in outcomes]
        assert kinds == [(Chunk, 1), (Chunk, 2), (Chunk, 1), (Failure, 1)]
        assert outcomes[3].error.reason == "generation_failed"
        assert "no bread" in outcomes[3].error.message

    def test_close(self, model: HibariModel) -> None:
        model.admit(Request(1, TEXT, True, {"seed": 1}))
        model.close()
        assert not model.busy()


class TestRequests:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "  \n ",
            "...",
            "?!",
            "—",
            "\N{GRINNING FACE}" * 3,
            "日本語",
            "\x00",
            "---\n\n***",
            "[a](//)",
        ],
    )
    def test_nothing_to_say(self, speaker: tuple[Driver, int], text: str) -> None:
        driver, model = speaker
        name, payload = driver.ask("generate", model_id=model, text=text)
        assert name == "failed"
        assert payload["reason"] == "invalid_text"
        assert "hibari" in payload["message"]

    @pytest.mark.parametrize("speed", [0.49, 2.01, -1, "fast", True, float("nan"), [1]])
    def test_speed(self, model: HibariModel, speed: Any) -> None:
        with pytest.raises(ChatterbexError) as caught:
            say(model, "Hello.", speed=speed)
        assert caught.value.reason == "invalid_option"
        assert not model.busy()

    def test_voice(self, model: HibariModel) -> None:
        assert say(model, "Hello.", voice="heart")[0].size == say(model, "Hello.", voice=None)[0].size

    @pytest.mark.parametrize("name", ["emma", "fenrir", "nobody", "ann.wav", 5])
    def test_other_voices_are_never_fetched(
        self, model: HibariModel, name: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(urllib.request, "urlopen", None)
        with pytest.raises(ChatterbexError) as caught:
            say(model, "Hello.", voice=name)
        assert caught.value.reason == "not_supported"
        assert "heart" in caught.value.message
        assert not model.busy()

    def test_unknown_function(self, model: HibariModel) -> None:
        with pytest.raises(ChatterbexError) as caught:
            model.call("clone", {})
        assert caught.value.reason == "not_supported"


class TestReading:
    """How a text is prepared before it is spoken."""

    @pytest.fixture
    def heard(self, model: HibariModel, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
        """The phonemes that would be spoken, without speaking; none for an invalid text."""
        spoken: list[str] = []

        def ids(phonemes: str) -> list[int]:
            spoken.append(phonemes)
            return [0, 1, 0]

        monkeypatch.setattr(model._voice, "ids", ids)
        monkeypatch.setattr(model._voice, "from_ids", lambda *_: np.zeros(10, np.float32))

        def heard(text: str) -> list[str]:
            spoken.clear()
            try:
                say(model, text)
            except ChatterbexError as error:
                if error.reason != "invalid_text":
                    raise
            return spoken

        return heard

    def test_pronunciation_links(self, heard: Callable[[str], list[str]]) -> None:
        assert heard("Say [hibari](/hibˈɑɹi/) now.") == ["sˈA hibˈɑɹi nˈW."]

    def test_links_are_not_cut(self, heard: Callable[[str], list[str]]) -> None:
        link = "[a name, with parts](/hibˈɑɹi, hibˈɑɹi, hibˈɑɹi/)"
        for before in range(40):
            phonemes = " ".join(heard("a" * before + " " + f"and then {link}, " * 30 + "end."))
            assert phonemes.count("hibˈɑɹi, hibˈɑɹi, hibˈɑɹi") == 30

    def test_long_sentence_with_clauses(self, heard: Callable[[str], list[str]]) -> None:
        text = ", ".join(sentence.rstrip(".?") for sentence in SENTENCES * 3) + "."
        pieces = heard(text)
        assert len(pieces) > 3
        assert all(len(piece) <= hibari.MAX_PHONEMES for piece in pieces)
        assert all(piece.endswith(",") for piece in pieces[:-1])

    def test_long_sentence_without_clauses(self, heard: Callable[[str], list[str]], voice: Hibari) -> None:
        text = " ".join(sentence.rstrip(".?") for sentence in SENTENCES * 5)
        pieces = heard(text)
        assert all(len(piece) <= hibari.MAX_PHONEMES for piece in pieces)
        assert max(map(len, pieces)) > hibari.MAX_PHONEMES / 2
        assert len(" ".join(pieces).split()) == len(text.split())

    def test_long_words(self, heard: Callable[[str], list[str]], voice: Hibari) -> None:
        word = "zorblax" * 6
        [phonemes] = heard(word)
        assert phonemes.count("blˈ") + phonemes.count("bl") >= 5, "all of it, not its first 24 letters"
        pieces = heard("q" * 10_000)
        assert all(len(piece) <= hibari.MAX_PHONEMES for piece in pieces)

    def test_long_numbers(self, heard: Callable[[str], list[str]]) -> None:
        one = "wˈʌn"
        [phonemes] = heard("1" * 30)
        assert phonemes.count(one) == 30
        [phonemes] = heard(",".join(["111"] * 10))
        assert phonemes.count(one) == 30
        [phonemes] = heard("Pi is 3.14159, and 1,000,000 is a million.")
        assert phonemes.count("mˈɪljᵊn") == 2

    def test_digits_of_other_shapes(self, heard: Callable[[str], list[str]]) -> None:
        [phonemes] = heard("\N{CIRCLED DIGIT ONE}A and 10\N{SUPERSCRIPT FOUR}.")
        assert "wˈʌn" in phonemes
        assert "fˈɔɹ" in phonemes

    def test_repeated_punctuation(self, heard: Callable[[str], list[str]]) -> None:
        [phonemes] = heard("Wow" + "!" * 400)
        assert phonemes.endswith("!!!")
        assert len(phonemes) < 20

    @pytest.mark.parametrize("seed", range(3))
    def test_cutting_loses_nothing(self, seed: int) -> None:
        chance = random.Random(seed)
        tokens = [
            "word",
            "a",
            "x" * 90,
            "end,",
            "so;",
            "1,234",
            "9" * 70,
            "[li nk](/ə ˈb, c/)",
            "a-b/" * 30,
            "é",
        ]
        for _ in range(200):
            text = " ".join(chance.choice(tokens) for _ in range(chance.randrange(1, 200)))
            pieces = list(readable.readable([text]))
            assert all(0 < len(piece) <= readable.MAX_TEXT for piece in pieces)
            bare = re.compile(r"\s|(?<=9),(?=9)")
            assert bare.sub("", "".join(pieces)) == bare.sub("", text)
            runs = re.sub(r"\[li nk\]\([^)]*\)", "link", " ".join(pieces)).split()
            assert max(map(len, runs)) <= readable.MAX_RUN

    @pytest.mark.parametrize("limit", [1, 2, 7, 400])
    def test_split(self, limit: int) -> None:
        for text in ("", "a", "a b", "aa, bb; cc dd " * 50, "x" * 1_000):
            pieces = list(readable.split(text, limit))
            assert all(len(piece) <= limit for piece in pieces)
            assert "".join("".join(pieces).split()) == "".join(text.split())

    @pytest.mark.parametrize(
        "text",
        [
            "$" * 1_200,
            "[" * 1_200,
            "[a](" * 800,
            "a-" * 400,
            "1/" * 400,
            "+1" * 400,
            "aB" * 400,
            "1" * 1_200,
            "1,234," * 500,
            "a." * 1_500,
            "'" * 3_000,
            "e\u0301" * 1_000,
            "\N{GRINNING FACE}" * 1_000,
            "\u200d" * 1_000,
            "x\u2028y\ufeff\u202ez",
            "مرحبا hello שלום",
            "a\x00b\x01\x1b[31m",
            "., " * 1_000,
            "http://" + "a/b?c=d&" * 300,
            "Henry " + "I" * 2_000,
        ],
    )
    def test_odd_text_ends(self, heard: Callable[[str], list[str]], text: str) -> None:
        assert all(len(piece) <= hibari.MAX_PHONEMES for piece in heard(text))

    def test_random_text(self, heard: Callable[[str], list[str]]) -> None:
        signs = (
            "abcXYZ0123456789 \n\t.,:;!?'\"()[]{}-–—_/\\@#$%^&*+=<>|~`“”…©°€£½²³Ⅷ①⁴٣一あשçñßЖ😀\u0301\u200b"
        )
        tokens = [
            "Dr. ",
            "9:30am",
            "$3.2 billion",
            "5km",
            "[x](/ˈæ/)",
            "http://a.b",
            "Henry VIII",
            "I'm",
            "1/2",
            "2-3",
        ]
        chance = random.Random(4)
        for _ in range(150):
            kind = chance.choice([signs, tokens])
            text = "".join(chance.choice(kind) for _ in range(chance.randrange(1, 80)))
            heard(text)


@pytest.fixture(scope="module")
def spoken(voice: Hibari) -> list[np.ndarray]:
    """The sentences, spoken one by one."""
    return [say(HibariModel(voice, {}), sentence)[0] for sentence in SENTENCES]


class TestEars:
    def test_ten_sentences(self, spoken: list[np.ndarray]) -> None:
        heard = [recognition.hear(audio) for audio in spoken]
        assert recognition.understood(zip(SENTENCES, heard, strict=True)) >= 0.9, heard

    def test_long_sentence_without_punctuation(self, model: HibariModel) -> None:
        text = " and ".join(sentence.rstrip(".?").lower() for sentence in SENTENCES[1:])
        audio, metadata = say(model, text)
        assert metadata["sentences"] > 1
        heard = recognition.hear(audio)
        assert recognition.understood([(text, heard)]) >= 0.8, heard

    def test_the_comparison_detects_wrong_sound(self, spoken: list[np.ndarray]) -> None:
        heard = [recognition.hear(audio[::-1]) for audio in spoken[:2]]
        assert recognition.understood(zip(SENTENCES, heard, strict=False)) < 0.3

    def test_resampling_keeps_tones_and_drops_aliases(self) -> None:
        time = np.arange(24_000) / 24_000
        low, high = (np.sin(2 * np.pi * f * time) for f in (1_000, 11_000))
        level = [
            np.sqrt(np.mean(recognition.resample(tone, 24_000)[1_000:-1_000] ** 2)) for tone in (low, high)
        ]
        assert level[0] == pytest.approx(0.5**0.5, rel=0.01)
        assert level[1] < 0.01
        assert recognition.errors("one two three", "one too three four") == 2


class TestSamples:
    def test_leaves_good_ones_alone(self) -> None:
        good = np.linspace(-1, 1, 9, dtype=np.float32)
        assert samples(good) is good or np.shares_memory(samples(good), good)

    @pytest.mark.parametrize("odd", [[0.5, -2.0], np.array([[0.5, -2.0]]), np.array([0.5, 9, -2.0])[::2]])
    def test_brings_others_into_form(self, odd: Any) -> None:
        audio = samples(odd)
        assert audio.dtype == np.float32
        assert audio.flags.c_contiguous
        np.testing.assert_array_equal(audio, np.array([0.5, -1], np.float32))

    @pytest.mark.parametrize("none", [[], np.zeros((1, 0)), np.zeros((0, 1))])
    def test_none(self, none: Any) -> None:
        assert samples(none).shape == (0,)

    @pytest.mark.parametrize("bad", [np.zeros((2, 2)), [np.nan], [np.inf, 1], [-np.inf]])
    def test_refuses(self, bad: Any) -> None:
        with pytest.raises(ChatterbexError):
            samples(bad)

    def test_one_number(self) -> None:
        assert samples(0.5).tolist() == [0.5]


@pytest.fixture(autouse=True)
def _patches_are_undone(voice: Hibari) -> Iterator[None]:
    """Checks that a test undoes its patches, which would affect all other tests."""
    before = dict(vars(voice))
    yield
    assert vars(voice) == before
