"""The engine's protocol, on the fake model."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from chatterbex import registry
from chatterbex.engine import Engine
from chatterbex.errors import REASONS, ChatterbexError
from driving import PACKAGE, Driver
from fake_model import expected

UNKNOWN = 999_999


def failed(answer: tuple[str, dict[str, Any]], reason: str) -> dict[str, Any]:
    name, payload = answer
    assert name == "failed", answer
    assert set(payload) == {"reason", "message", "details"}
    assert payload["reason"] == reason, payload
    assert reason in REASONS
    assert payload["message"]
    return payload


class TestLoading:
    def test_announces_phases_then_info(self, driver: Driver) -> None:
        model = driver.send("load", model="fake", options={"device": "mps", "max_batch": 3})
        driver.step()
        assert driver.names(model) == ["loading"]
        driver.run()
        assert driver.names(model) == ["loading", "loading", "loaded"]
        phases = [payload for name, payload, _ in driver.events[model] if name == "loading"]
        assert [payload["phase"] for payload in phases] == ["one", "two"]
        assert 0 <= phases[0]["seconds"] <= phases[1]["seconds"]
        info = driver.payload(model, "loaded")
        assert info["model"] == "fake"
        assert info["state"] == "ready"
        assert info["sample_rate"] == 24_000
        assert info["max_batch"] == 3
        assert info["device"]["requested"] == "mps"
        assert set(info["load"]) == {"one", "two"}
        assert all(seconds >= 0 for seconds in info["load"].values())
        assert not any(final for _, _, final in driver.events[model])

    def test_unloading_makes_pytorch_release_the_devices_memory(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry.register("placed", "fake_model:PlacedModel")
        emptied: list[str] = []
        monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
        monkeypatch.setattr("chatterbex.host.empty_cache", emptied.append)
        for device in ("cuda:1", "cpu"):
            model = driver.load("placed", device=device)
            assert driver.ask("unload", model_id=model) == ("done", {})
        assert emptied == ["cuda:1"]

    def test_an_unloaded_model_is_gone_even_if_it_refers_to_itself(self, driver: Driver) -> None:
        model = driver.load()
        [fake] = [one for one in gc.get_objects() if type(one).__name__ == "FakeModel"]
        fake.itself = fake
        gone = weakref.ref(fake)
        del fake
        gc.disable()
        try:
            assert driver.ask("unload", model_id=model) == ("done", {})
            assert gone() is None
        finally:
            gc.enable()

    def test_import_counts_to_the_first_phase(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        ticks = SimpleNamespace(perf_counter=itertools.count().__next__)
        monkeypatch.setattr("chatterbex.host.time", ticks)
        assert driver.payload(driver.load(), "loaded")["load"] == {"one": 2, "two": 1}

    def test_other_models_go_on_meanwhile(self, driver: Driver) -> None:
        first = driver.load()
        speech = driver.say(first, "steps:6")
        second = driver.send("load", model="fake", options={"phases": list("abcd")})
        while driver.names(second)[-1:] != ["loaded"]:
            driver.step()
        assert driver.names(speech) == ["started"]
        driver.run()
        assert driver.names(speech) == ["started", "done"]

    def test_requests_wait_for_it(self, driver: Driver) -> None:
        model = driver.send("load", model="fake", options={})
        speech = driver.say(model, "hello")
        call = driver.send("call", model_id=model, function="echo", arguments={"a": 1})
        driver.step()
        assert driver.names(speech) == []
        driver.run()
        assert driver.names(speech) == ["started", "done"]
        assert driver.payload(call, "done")["arguments"] == {"a": 1}

    def test_info_while_loading(self, driver: Driver) -> None:
        model = driver.send("load", model="fake", options={})
        driver.step()
        question = driver.send("info", model_id=model)
        driver.step()
        info = driver.payload(question, "done")
        assert (info["state"], info["model"]) == ("loading", "fake")
        assert info["phase"] in ("one", "two")

    @pytest.mark.parametrize(
        ("how", "reason"),
        [
            ("fail", "model_load_failed"),
            ("missing", "not_set_up"),
            ("oom", "out_of_memory"),
            ("none", "model_load_failed"),
        ],
    )
    def test_failure(self, driver: Driver, how: str, reason: str) -> None:
        model = driver.send("load", model="fake", options={"load": how})
        speech = driver.say(model, "hello")
        call = driver.send("call", model_id=model, function="echo")
        driver.run()
        name, payload, final = driver.events[model][-1]
        failed((name, payload), reason)
        assert final
        failed(driver.events[speech][-1][:2], reason)
        failed(driver.events[call][-1][:2], reason)
        failed(driver.ask("info", model_id=model), "engine_crashed")
        assert driver.load() > model, "another load works"

    def test_missing_package_names_it_and_the_remedy(self, driver: Driver) -> None:
        registry.register("absent", "no_such_module_at_all:Thing")
        payload = failed(driver.ask("load", model="absent"), "not_set_up")
        assert "no_such_module_at_all" in payload["message"]
        assert payload["message"].endswith("run mix chatterbex.setup")

    def test_pytorch_is_installed_by_a_setup_for_a_device(self) -> None:
        probe = f"""
import sys
sys.path.insert(0, {str(PACKAGE)!r})
sys.modules["torch"], out = None, sys.stdout
from chatterbex.engine import Engine
engine = Engine({{}})
engine.submit({{"op": "load", "id": 1, "model": "nano", "options": {{}}}})
engine.submit({{"op": "watermarked", "id": 2, "samples": b"", "sample_rate": 24_000}})
while engine.busy():
    for id, name, payload, final in engine.step():
        if final:
            print(id, payload["reason"], payload["message"], file=out)
"""
        said = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
        lines = said.stdout.splitlines()
        assert [line.split()[1] for line in lines] == ["not_set_up"] * 2
        for line in lines:
            assert "'torch'" in line
            assert "run mix chatterbex.setup --auto (or --mps, --cuda, --cpu)" in line

    def test_failure_has_the_traceback(self, driver: Driver) -> None:
        payload = failed(driver.ask("load", model="fake", options={"load": "fail"}), "model_load_failed")
        assert payload["message"] == "ValueError: told to fail"
        assert payload["details"]["exception"] == "ValueError"
        assert "fake_model.py" in payload["details"]["traceback"]

    def test_unknown_model_lists_the_known(self, driver: Driver) -> None:
        payload = failed(driver.ask("load", model="bogus"), "unknown_model")
        assert "hibari" in payload["message"]

    def test_a_target_that_is_not_a_model(self, driver: Driver) -> None:
        registry.register("odd", "json:JSONDecoder")
        failed(driver.ask("load", model="odd"), "model_load_failed")

    def test_cancel(self, driver: Driver) -> None:
        model = driver.send("load", model="fake", options={})
        speech = driver.say(model, "hello")
        driver.step()
        driver.engine.cancel(model)
        driver.run()
        assert driver.names(model) == ["loading", "cancelled"]
        failed(driver.events[speech][-1][:2], "cancelled")

    def test_a_loaded_model_is_not_cancelled(self, driver: Driver) -> None:
        model = driver.load()
        driver.engine.cancel(model)
        assert driver.ask("generate", model_id=model, text="hello")[0] == "done"
        assert driver.names(model)[-1] == "loaded"


class TestUnloading:
    def test_live_and_waiting_requests_fail(self, driver: Driver) -> None:
        model = driver.load(max_batch=2)
        speeches = [driver.say(model, "steps:50", stream=True) for _ in range(5)]
        driver.step()
        unload = driver.send("unload", model_id=model)
        call = driver.send("call", model_id=model, function="echo")
        driver.run()
        for speech in speeches:
            failed(driver.events[speech][-1][:2], "cancelled")
        assert driver.events[model][-1] == ("unloaded", {}, True)
        assert driver.events[unload] == [("done", {}, True)]
        failed(driver.events[call][-1][:2], "engine_crashed")
        assert not driver.engine.busy()

    def test_while_loading(self, driver: Driver) -> None:
        model = driver.send("load", model="fake", options={})
        speech = driver.say(model, "hello")
        driver.step()
        assert driver.ask("unload", model_id=model) == ("done", {})
        assert driver.names(model) == ["loading", "unloaded"]
        failed(driver.events[speech][-1][:2], "cancelled")

    def test_closes_the_model_and_lets_go_of_it(self, driver: Driver) -> None:
        import gc

        from fake_model import FakeModel

        model = driver.load()
        [loaded] = [one for one in gc.get_objects() if type(one) is FakeModel]
        driver.ask("unload", model_id=model)
        assert loaded.closed
        del loaded
        assert not [one for one in gc.get_objects() if type(one) is FakeModel]

    def test_close_that_raises_is_logged(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        from fake_model import FakeModel

        model = driver.load()
        monkeypatch.setattr(FakeModel, "close", lambda _: 1 / 0)
        assert driver.ask("unload", model_id=model) == ("done", {})
        assert driver.names(model)[-1] == "unloaded"
        assert any("ZeroDivisionError" in line for _, line in driver.engine.drain_log())

    def test_unknown_and_twice(self, driver: Driver) -> None:
        model = driver.load()
        assert driver.ask("unload", model_id=UNKNOWN) == ("done", {})
        assert driver.ask("unload", model_id=model) == ("done", {})
        assert driver.ask("unload", model_id=model) == ("done", {})
        failed(driver.ask("generate", model_id=model, text="hello"), "engine_crashed")

    def test_the_other_model_continues(self, driver: Driver) -> None:
        first, second = driver.load(), driver.load()
        speech = driver.say(second, "steps:4")
        driver.step()
        driver.ask("unload", model_id=first)
        driver.run()
        assert driver.names(speech) == ["started", "done"]


class TestGenerating:
    def test_whole(self, driver: Driver) -> None:
        model = driver.load()
        speech = driver.say(model, "steps:3 grüße", seed=7)
        driver.run()
        assert driver.names(speech) == ["started", "done"]
        done = driver.payload(speech, "done")
        assert set(done) == {"samples", "sample_rate", "metadata"}
        assert done["sample_rate"] == 24_000
        assert done["samples"].dtype == np.float32
        assert done["samples"].flags.c_contiguous
        np.testing.assert_array_equal(done["samples"], expected("steps:3 grüße"))
        assert done["metadata"]["seed"] == 7
        assert done["metadata"]["steps"] == 3

    def test_a_joined_stream_is_the_whole(self, driver: Driver) -> None:
        model = driver.load()
        speech = driver.say(model, "steps:5 and something more", stream=True)
        driver.run()
        assert driver.names(speech) == ["started", *["chunk"] * 5, "done"]
        chunks = [payload for name, payload, _ in driver.events[speech] if name == "chunk"]
        assert [chunk["metadata"]["step"] for chunk in chunks] == [0, 1, 2, 3, 4]
        joined = np.concatenate([chunk["samples"] for chunk in chunks])
        np.testing.assert_array_equal(joined, expected("steps:5 and something more"))
        done = driver.payload(speech, "done")
        assert done["samples"].size == 0
        assert done["metadata"]["steps"] == 5

    def test_empty_chunks_are_not_sent(self, driver: Driver) -> None:
        model = driver.load()
        speech = driver.say(model, "big:0 steps:3", stream=True)
        driver.run()
        assert driver.names(speech) == ["started", "done"]

    def test_stream_is_optional(self, driver: Driver) -> None:
        model = driver.load()
        assert driver.ask("generate", model_id=model, text="hello", options={})[0] == "done"

    def test_a_missing_seed_is_drawn(self, driver: Driver) -> None:
        model = driver.load()
        seeds = {
            driver.ask("generate", model_id=model, text="hello", options=options)[1]["metadata"]["seed"]
            for options in ({}, {"seed": None}, None)
        }
        assert len(seeds) == 3
        assert all(0 <= seed < 2**32 for seed in seeds)

    def test_batch_is_bounded_and_first_come_first_served(self, driver: Driver) -> None:
        model = driver.load(max_batch=2)
        speeches = [driver.say(model, "steps:2") for _ in range(5)]
        driver.step()
        assert [len(driver.names(speech)) for speech in speeches] == [1, 1, 0, 0, 0]
        driver.run()
        assert [id for id, name in driver.order if name == "done"] == speeches
        assert [id for id, name in driver.order if name == "started"] == speeches

    def test_two_models_take_turns(self, driver: Driver) -> None:
        first, second = driver.load(), driver.load()
        one = driver.say(first, "steps:4", stream=True)
        two = driver.say(second, "steps:4", stream=True)
        driver.run()
        assert [id for id, name in driver.order if name == "chunk"] == [one, two] * 4

    def test_requests_join_a_running_batch(self, driver: Driver) -> None:
        model = driver.load()
        long = driver.say(model, "steps:10")
        driver.step()
        short = driver.say(model, "hello")
        driver.run()
        assert [id for id, name in driver.order if name == "done"] == [short, long]

    def test_none_lost_none_crossed(self, driver: Driver) -> None:
        models = [driver.load(max_batch=7), driver.load(max_batch=1)]
        texts = {driver.say(models[n % 2], f"steps:{n % 5 + 1} text {n}"): n for n in range(300)}
        driver.run()
        for speech, n in texts.items():
            samples = driver.payload(speech, "done")["samples"]
            np.testing.assert_array_equal(samples, expected(f"steps:{n % 5 + 1} text {n}"))


class TestFailing:
    def test_one_request_alone(self, driver: Driver) -> None:
        model = driver.load()
        good = driver.say(model, "steps:3")
        bad = driver.say(model, "fail")
        driver.run()
        payload = failed(driver.events[bad][-1][:2], "generation_failed")
        assert payload["message"] == "ValueError: told to fail"
        assert payload["details"]["exception"] == "ValueError"
        assert "Traceback" in payload["details"]["traceback"]
        assert driver.names(good) == ["started", "done"]

    def test_reason_and_details_of_the_model(self, driver: Driver) -> None:
        model = driver.load()
        payload = failed(driver.ask("generate", model_id=model, text="fail:not_supported"), "not_supported")
        assert payload["details"] == {"told": True}

    def test_out_of_memory(self, driver: Driver) -> None:
        model = driver.load()
        failed(driver.ask("generate", model_id=model, text="oom"), "out_of_memory")

    def test_refused(self, driver: Driver) -> None:
        model = driver.load()
        speech = driver.say(model, "refuse")
        driver.run()
        assert driver.names(speech) == ["failed"]
        failed(driver.events[speech][-1][:2], "invalid_text")

    def test_step_that_raises_fails_the_batch_not_the_model(self, driver: Driver) -> None:
        model = driver.load(max_batch=2)
        batch = [driver.say(model, "steps:9"), driver.say(model, "raise")]
        waiting = driver.say(model, "hello")
        driver.run()
        for speech in batch:
            payload = failed(driver.events[speech][-1][:2], "generation_failed")
            assert "told to raise" in payload["message"]
        assert driver.names(waiting) == ["started", "done"]
        assert driver.names(model)[-1] == "loaded"

    def test_broken_model(self, driver: Driver) -> None:
        model = driver.load(max_batch=1)
        speeches = [driver.say(model, "broken"), driver.say(model, "hello")]
        driver.run()
        name, payload, final = driver.events[model][-1]
        failed((name, payload), "generation_failed")
        assert final
        for speech in speeches:
            failed(driver.events[speech][-1][:2], "generation_failed")
        # A status request after the end of a request shows that it has ended.
        assert next(id for id, name in driver.order if name == "failed") == model
        failed(driver.ask("generate", model_id=model, text="hello"), "engine_crashed")

    def test_model_that_stays_busy_after_a_failed_step_is_broken(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from fake_model import FakeModel

        model = driver.load()
        monkeypatch.setattr(FakeModel, "cancel", lambda *_: None)
        speech = driver.say(model, "raise")
        driver.run()
        failed(driver.events[speech][-1][:2], "generation_failed")
        assert driver.names(model)[-1] == "failed"

    def test_busy_that_raises_breaks_the_model(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        from fake_model import FakeModel

        model = driver.load()
        monkeypatch.setattr(FakeModel, "busy", lambda _: 1 / 0)
        driver.run()
        failed(driver.events[model][-1][:2], "generation_failed")

    def test_lost_request(self, driver: Driver) -> None:
        model = driver.load()
        payload = failed(driver.ask("generate", model_id=model, text="lose"), "generation_failed")
        assert "lost" in payload["message"]
        assert driver.ask("generate", model_id=model, text="hello")[0] == "done"

    @pytest.mark.parametrize("text", ["nan", "shape", "nan steps:3", "shape steps:3"])
    def test_samples_that_are_not_finite(self, driver: Driver, text: str) -> None:
        model = driver.load()
        good = driver.say(model, "steps:5")
        failed(driver.ask("generate", model_id=model, text=text), "generation_failed")
        assert driver.names(good) == ["started", "done"]

    def test_crash_escapes(self, driver: Driver) -> None:
        model = driver.load()
        driver.say(model, "crash")
        with pytest.raises(SystemExit):
            driver.run()

    def test_notices_go_to_the_caller_of_load(self, driver: Driver) -> None:
        model = driver.load()
        speech = driver.say(model, "notice")
        driver.run()
        assert driver.payload(model, "fallback") == {"from": "mps", "to": "cpu", "reason": "told to"}
        assert driver.names(speech) == ["started", "done"]


class TestCancelling:
    def test_before_its_command(self, driver: Driver) -> None:
        model = driver.load()
        driver.engine.cancel(500)
        driver.engine.submit({"op": "generate", "id": 500, "model_id": model, "text": "hello"})
        driver.run()
        assert driver.names(500) == ["cancelled"]

    def test_submitted_and_not_seen(self, driver: Driver) -> None:
        model = driver.load()
        speech = driver.say(model, "hello")
        driver.engine.cancel(speech)
        driver.run()
        assert driver.events[speech] == [("cancelled", {}, True)]

    def test_waiting(self, driver: Driver) -> None:
        model = driver.load(max_batch=1)
        first, second, third = (driver.say(model, "steps:3") for _ in range(3))
        driver.step()
        driver.engine.cancel(second)
        driver.run()
        assert driver.names(second) == ["cancelled"]
        assert [id for id, name in driver.order if name == "done"] == [first, third]

    def test_mid_way(self, driver: Driver) -> None:
        model = driver.load()
        speech = driver.say(model, "steps:50 big:500", stream=True)
        other = driver.say(model, "steps:5")
        for _ in range(3):
            driver.step()
        driver.engine.cancel(speech)
        assert driver.engine.busy(), "the event is still to be sent"
        driver.step()
        assert driver.names(speech) == ["started", "chunk", "chunk", "chunk", "cancelled"]
        driver.run()
        assert driver.names(other) == ["started", "done"]

    def test_speech_that_does_not_end_is_dropped(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from fake_model import FakeModel

        model = driver.load()
        monkeypatch.setattr(FakeModel, "cancel", lambda *_: None)
        spoken, failing = driver.say(model, "steps:3"), driver.say(model, "fail")
        other = driver.say(model, "steps:5")
        driver.step()
        driver.engine.cancel(spoken)
        driver.run()
        assert driver.names(spoken) == ["started", "cancelled"]
        assert driver.names(failing) == ["started", "failed"]
        assert driver.names(other) == ["started", "done"]
        assert driver.names(model)[-1] == "loaded"

    def test_done_twice_and_unknown(self, driver: Driver) -> None:
        model = driver.load()
        speech = driver.say(model, "hello")
        driver.run()
        for id in (speech, speech, UNKNOWN):
            driver.engine.cancel(id)
        assert not driver.engine.busy()
        assert driver.names(speech) == ["started", "done"]

    def test_call(self, driver: Driver) -> None:
        model = driver.send("load", model="fake", options={})
        call = driver.send("call", model_id=model, function="echo")
        driver.step()
        driver.engine.cancel(call)
        driver.run()
        assert driver.names(call) == ["cancelled"]

    def test_cancel_that_raises_breaks_the_model(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from fake_model import FakeModel

        model = driver.load()
        one, two = driver.say(model, "steps:9"), driver.say(model, "steps:9")
        driver.step()
        monkeypatch.setattr(FakeModel, "cancel", lambda *_: 1 / 0)
        driver.engine.cancel(one)
        driver.run()
        assert driver.names(one)[-1] == "cancelled"
        failed(driver.events[two][-1][:2], "generation_failed")
        failed(driver.events[model][-1][:2], "generation_failed")

    def test_request_1000_costs_no_more_than_the_first(self, driver: Driver) -> None:
        """Counts calls, because times vary on a busy machine."""
        model = driver.load()
        say = functools.partial(driver.say, model, "steps:3 and some words", stream=True)

        def calls() -> int:
            counted = itertools.count()
            say()
            sys.setprofile(lambda *_: next(counted))
            try:
                driver.run()
            finally:
                sys.setprofile(None)
            return next(counted)

        calls()
        first = calls()
        for number in range(1_000):
            speech = say()
            for _ in range(number % 4):
                driver.step()
            driver.engine.cancel(speech)
        driver.run()
        assert calls() == first

    def test_memory_of_early_ones_is_bounded(self, driver: Driver) -> None:
        for id in range(10_000, 30_000):
            driver.engine.cancel(id)
        assert len(driver.engine._cancelled) < 5_000


class TestCommands:
    def test_info(self, driver: Driver) -> None:
        model = driver.load(device="cpu")
        assert driver.ask("info", model_id=model) == ("done", driver.payload(model, "loaded"))

    def test_info_that_raises(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        from fake_model import FakeModel

        model = driver.load()
        monkeypatch.setattr(FakeModel, "info", lambda _: 1 / 0)
        failed(driver.ask("info", model_id=model), "generation_failed")
        failed(driver.ask("load", model="fake"), "model_load_failed")

    def test_call(self, driver: Driver) -> None:
        model = driver.load()
        name, payload = driver.ask("call", model_id=model, function="echo", arguments={"a": [1, None]})
        assert name == "done"
        assert payload["arguments"] == {"a": [1, None]}

    def test_one_call_a_step(self, driver: Driver) -> None:
        model = driver.load()
        calls = [driver.send("call", model_id=model, function="echo") for _ in range(3)]
        driver.step()
        assert [driver.names(call) for call in calls] == [["done"], [], []]
        driver.run()

    def test_call_that_fails(self, driver: Driver) -> None:
        model = driver.load()
        failed(driver.ask("call", model_id=model, function="fail"), "generation_failed")
        payload = failed(driver.ask("call", model_id=model, function="bogus"), "not_supported")
        assert "bogus" in payload["message"]
        assert driver.ask("call", model_id=model, function="echo")[0] == "done"

    def test_hold_and_release(self, driver: Driver) -> None:
        model = driver.load()
        speech = driver.say(model, "hold")
        for _ in range(3):
            driver.step()
        held = driver.send("call", model_id=model, function="held")
        driver.step()
        assert driver.payload(held, "done") == {"held": 1}
        assert driver.names(speech) == ["started"]
        driver.ask("call", model_id=model, function="release")
        assert driver.names(speech) == ["started", "done"]

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            ({"op": "bogus"}, "not_supported"),
            ({"op": None}, "not_supported"),
            ({"op": ["load"]}, "not_supported"),
            ({}, "not_supported"),
            ({"op": "load"}, "invalid_option"),
            ({"op": "load", "model": 5}, "invalid_option"),
            ({"op": "load", "model": "fake", "options": [1]}, "invalid_option"),
            ({"op": "unload"}, "invalid_option"),
            ({"op": "unload", "model_id": "1"}, "invalid_option"),
            ({"op": "generate", "text": "hello"}, "invalid_option"),
            ({"op": "generate", "model_id": True, "text": "hello"}, "invalid_option"),
            ({"op": "generate", "model_id": UNKNOWN, "text": "hello"}, "engine_crashed"),
            ({"op": "generate", "model_id": 1}, "invalid_text"),
            ({"op": "generate", "model_id": 1, "text": None}, "invalid_text"),
            ({"op": "generate", "model_id": 1, "text": b"hello"}, "invalid_text"),
            ({"op": "generate", "model_id": 1, "text": 5}, "invalid_text"),
            ({"op": "generate", "model_id": 1, "text": "hello", "stream": "yes"}, "invalid_option"),
            ({"op": "generate", "model_id": 1, "text": "hello", "options": "no"}, "invalid_option"),
            ({"op": "generate", "model_id": 1, "text": "hello", "options": {"seed": "1"}}, "invalid_option"),
            ({"op": "generate", "model_id": 1, "text": "hello", "options": {"seed": 1.5}}, "invalid_option"),
            ({"op": "generate", "model_id": 1, "text": "hello", "options": {"seed": True}}, "invalid_option"),
            ({"op": "info"}, "invalid_option"),
            ({"op": "info", "model_id": UNKNOWN}, "engine_crashed"),
            ({"op": "call", "model_id": 1}, "invalid_option"),
            ({"op": "call", "model_id": 1, "function": "echo", "arguments": 5}, "invalid_option"),
            ({"op": "call", "model_id": UNKNOWN, "function": "echo"}, "engine_crashed"),
        ],
    )
    def test_bad(self, driver: Driver, command: dict[str, Any], reason: str) -> None:
        assert driver.load() == 1
        driver.engine.submit({"id": 700, **command})
        driver.run()
        [(name, payload, final)] = driver.events[700]
        failed((name, payload), reason)
        assert final
        assert driver.ask("generate", model_id=1, text="hello")[0] == "done"

    @pytest.mark.parametrize(
        "command", [{}, {"id": None}, {"id": "1"}, {"id": 1.0}, {"id": True}, None, 5, []]
    )
    def test_without_an_id_is_logged(self, driver: Driver, command: Any) -> None:
        driver.engine.submit(command)
        driver.run()
        assert driver.events == {}
        [(level, line)] = driver.engine.drain_log()
        assert level == "error"
        assert "id" in line

    def test_id_in_use(self, driver: Driver) -> None:
        model = driver.load()
        speech = driver.say(model, "steps:5")
        driver.step()
        driver.engine.submit({"op": "generate", "id": speech, "model_id": model, "text": "hello"})
        driver.run()
        assert driver.names(speech) == ["started", "failed"]
        failed(driver.events[speech][-1][:2], "invalid_option")

    def test_the_command_is_copied(self, driver: Driver) -> None:
        model = driver.load()
        command = {"op": "generate", "id": 700, "model_id": model, "text": "hello"}
        driver.engine.submit(command)
        command["text"] = "other"
        driver.run()
        np.testing.assert_array_equal(driver.payload(700, "done")["samples"], expected("hello"))

    def test_idle(self, driver: Driver) -> None:
        assert not driver.engine.busy()
        assert driver.engine.step() == []
        assert driver.engine.drain_log() == []


class TestConfig:
    @pytest.mark.parametrize(
        "config",
        [
            {"threads": 0},
            {"threads": "2"},
            {"threads": True},
            {"threads": 1.5},
            {"env": []},
            {"env": {"A": 1}},
            {"env": {1: "a"}},
            {"extra_models": ["fake"]},
            {"extra_models": {"fake": "no colon"}},
            {"extra_models": {"fake": "mod:not an identifier"}},
            {"extra_models": {"fake": 5}},
            {"extra_models": {"": "a:B"}},
        ],
    )
    @pytest.mark.usefixtures("restored")
    def test_bad(self, config: dict[str, Any]) -> None:
        with pytest.raises(ChatterbexError) as caught:
            Engine(config)
        assert caught.value.reason == "invalid_option"

    @pytest.mark.usefixtures("restored")
    def test_other_keys_are_the_native_side_s(self) -> None:
        Engine({"program": "/bin/python", "python_path": [], "queue": 5, "env": None, "threads": None})

    def test_a_second_engine_starts_afresh(self, make: Callable[..., Driver]) -> None:
        first = make()
        model = first.load()
        print("from the first")
        second = make()
        failed(second.ask("generate", model_id=model, text="hello"), "engine_crashed")
        assert second.load()
        assert second.engine.drain_log() == [("info", "from the first")]
        assert "fake_model" in sys.modules
        assert os.environ["TQDM_DISABLE"] == "1"


def test_errors_have_known_reasons() -> None:
    with pytest.raises(ValueError, match="unknown reason"):
        ChatterbexError("bogus", "no such reason")
