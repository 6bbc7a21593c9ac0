"""Rows in one call, and a voice read once: the numbers of each are those that it would have alone."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: no attention to test")

from speaking import Listener, alone, request, say  # noqa: E402

from chatterbex.t3 import T3, T3Session, shared_attention  # noqa: E402
from chatterbex.t3.attention import DecodeAttention, Row  # noqa: E402
from chatterbex.t3.cache import KeyValueCache  # noqa: E402
from chatterbex.t3.linear import best_kernel  # noqa: E402
from chatterbex.t3.shared_attention import SharedAttention, room  # noqa: E402
from synthetic import t3 as synthetic  # noqa: E402

Models = Callable[..., T3]
HEADS, DIM, ROWS, LONGEST = 12, 64, 12, 700


@pytest.fixture
def exact() -> None:
    """Skips where torch does not give the same bits, so that rows are computed one by one."""
    if not (shared_attention.is_exact(HEADS, DIM, 0) and shared_attention.is_exact(HEADS, DIM, 376)):
        pytest.skip("this torch's attention gives other bits in company: it is not used")


class Situation:
    """A cache of made-up numbers, of whose rows some begin with the same voice."""

    def __init__(self, voices: Sequence[int], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.chance = random.Random(seed)
        self.cache = KeyValueCache(1, HEADS, DIM, torch.device("cpu"), torch.float32)
        self.cache.acquire(ROWS, room(max(voices) + LONGEST))
        self.cache.data.normal_(generator=generator)
        self.voices = [
            torch.randn(1, 2, HEADS, length, DIM, generator=generator) if length else None
            for length in voices
        ]
        self.qkv = torch.randn(ROWS, 3, HEADS, DIM, generator=generator)

    def row(self, index: int, length: int) -> Row:
        """A row of so many positions of its own behind any of the voices."""
        voice = self.chance.choice(self.voices)
        if voice is None:
            return Row(index, length - 1)
        self.cache.copy_in(index, voice)
        return Row(index, voice.shape[3] + length - 1, voice=voice)

    def attention(self, rows: Sequence[Row]) -> Any:
        """(M, H * D)."""
        queries = torch.stack([self.qkv[row.index] for row in rows])
        return SharedAttention(self.cache, rows)(0, queries)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("voices", [(0,), (376,), (376, 513), (0, 128, 200)])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.usefixtures("exact")
def test_to_the_bit_what_it_is_alone(seed: int, voices: Sequence[int], threads: int) -> None:
    torch.set_num_threads(threads)
    here = Situation(voices, seed)
    about = here.chance.choice([1, 40, 250, 509, LONGEST])
    lengths = [here.chance.randint(max(1, about - 20), about) for _ in range(ROWS)]
    if seed % 3 == 0:  # some are far behind
        lengths[2:5] = [1, 2, 3]
    rows = [here.row(index, length) for index, length in enumerate(lengths)]
    if seed % 2:  # they do not all lie side by side, nor in order
        here.chance.shuffle(rows)
    together = here.attention(rows)
    for place, row in enumerate(rows):
        assert torch.equal(together[place : place + 1], here.attention([row]))


@pytest.mark.parametrize("voices", [(0,), (376,), (376, 513)])
def test_what_attention_is(voices: Sequence[int]) -> None:
    here = Situation(voices, 1)
    rows = [here.row(index, 1 + 53 * index) for index in range(ROWS)]
    expected = DecodeAttention(here.cache, rows, eager=True)(0, here.qkv)
    torch.testing.assert_close(here.attention(rows), expected, atol=1e-5, rtol=1e-4)


def test_what_lies_beyond_a_rows_end_is_not_heard() -> None:
    here = Situation((376,), 1)
    rows = [here.row(index, 100 - index) for index in range(8)]
    before = here.attention(rows)
    for row in rows:
        here.cache.data[:, row.index, :, :, row.position + 1 :] = 1e4
    assert torch.equal(here.attention(rows), before)


def test_a_voice_is_read_once_for_all_who_speak_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fused, read = shared_attention._FUSED, []

    def counted(queries: Any, keys: Any, values: Any, **options: Any) -> Any:
        sizes = [size for size, stride in zip(keys.shape[:3], keys.stride(), strict=False) if stride]
        read.append(math.prod(sizes) // HEADS)
        return fused(queries, keys, values, **options)

    here = Situation((376,), 1)
    rows = [here.row(index, 97 + index) for index in range(8)]
    monkeypatch.setattr(shared_attention, "_FUSED", counted)
    here.attention(rows)
    assert read == [8 * 112, 376]


class TestSpeech:
    """Sessions that use it, and sessions that cannot."""

    @pytest.mark.usefixtures("exact")
    @pytest.mark.parametrize("name", ["turbo", "nano"])
    def test_a_long_voice_that_all_share_and_one_of_another(self, name: str, model: Models) -> None:
        config = synthetic.tiny(name)
        t3 = model(config)
        requests = [request(config, id, seed=id, prompt=200, text=5 + id) for id in range(6)]
        requests.append(request(config, "other", voice=3, prompt=150))
        session = T3Session(t3, 7)
        for one in requests:
            session.admit(one)
        listener = Listener(session)
        while any(live.fed is None for live in session._order.live.values()):
            listener.step()
        shared = {id(row.voice) for live in session._order.live.values() for row in live.rows}
        assert len(shared) == 2
        assert id(None) not in shared
        listener.run()
        for one in requests:
            assert listener.drawn[one.id] == alone(t3, one)

    def test_a_short_voice_is_not_read_apart(self, model: Models) -> None:
        config = synthetic.tiny("english")
        session = T3Session(model(config), 1)
        session.admit(request(config))
        Listener(session).step()
        assert all(row.voice is None for row in session._order.live["a"].rows)

    @pytest.mark.usefixtures("exact")
    @pytest.mark.parametrize("missing", ["everything", "the voice"])
    def test_a_torch_that_does_not_give_the_same_bits(
        self, missing: str, model: Models, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = synthetic.tiny("nano")
        t3 = model(config)
        requests = [request(config, id, seed=id, prompt=200) for id in range(3)]
        expected = say(t3, requests).drawn
        exact = shared_attention.is_exact
        monkeypatch.setattr(
            shared_attention,
            "is_exact",
            lambda heads, dim, voice: missing == "the voice" and not voice and exact(heads, dim, voice),
        )
        session = T3Session(t3, 3)
        assert session._shared == (missing == "the voice")
        for one in requests:
            session.admit(one)
        assert Listener(session).run().drawn == expected

    @pytest.mark.parametrize("batched", [None, True])
    def test_numbers_that_are_not_finite_do_not_reach_the_next_in_their_place(
        self, batched: bool | None, model: Models
    ) -> None:
        config = synthetic.tiny("turbo")
        t3 = model(config)
        session = T3Session(t3, 2, batched_attention=batched)
        broken = request(config, "broken", prompt=100, text=100)
        broken.conditionals.speaker_emb[:] = float("nan")
        session.admit(broken)
        listener = Listener(session).run()
        assert listener.ended("broken") == "failed"
        for id in "ab":
            session.admit(request(config, id, seed=7))
        listener.run()
        assert listener.ended("a") == listener.ended("b") == "limit"
        assert listener.drawn["a"] == alone(t3, request(config, seed=7))


class TestTrial:
    """Whether it can be trusted is tried."""

    def test_with_onednn_it_can(self) -> None:
        if best_kernel(torch.device("cpu"), torch.float32) != "onednn":
            pytest.skip("this torch has no oneDNN")
        assert shared_attention.is_exact(HEADS, DIM, 0)
        assert shared_attention.is_exact(HEADS, DIM, 376)

    @pytest.mark.parametrize("voice", [0, 376])
    def test_rows_that_affect_each_other_are_found_out(
        self, voice: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain = shared_attention._Group.attend

        def company(self: Any, layer: int, queries: Any) -> Any:
            return plain(self, layer, queries) * (1 + 1e-6 * len(queries))

        monkeypatch.setattr(shared_attention._Group, "attend", company)
        assert not shared_attention.is_exact.__wrapped__(HEADS, DIM, voice)

    def test_wrong_numbers_are_found_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fused = shared_attention._FUSED

        def wrong(*arguments: Any, **options: Any) -> Any:
            output, weight = fused(*arguments, **options)
            return output, 2 * weight  # another base of the logarithm, say

        monkeypatch.setattr(shared_attention, "_FUSED", wrong)
        assert not shared_attention.is_exact.__wrapped__(HEADS, DIM, 376)

    def test_a_torch_without_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shared_attention, "_FUSED", None)
        assert not shared_attention.is_exact.__wrapped__(HEADS, DIM, 0)
