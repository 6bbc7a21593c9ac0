"""What the engine changes in its process: the log, the environment, fork, and the cost of imports.

Each test that needs a fresh Python starts one.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable

import pytest

from chatterbex import log, process
from driving import HERE, PACKAGE, Driver


def python(code: str, **environment: str) -> str:
    """Runs code in a fresh Python and returns what it printed."""
    kept = {key: value for key, value in os.environ.items() if not key.endswith("_THREADS")}
    path = os.pathsep.join([str(PACKAGE), str(HERE)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestImporting:
    def test_is_cheap(self) -> None:
        loaded = json.loads(
            python(
                "import sys, json, chatterbex.engine as e\n"
                "engine = e.Engine({}); engine.submit({'op': 'info', 'id': 1}); engine.step()\n"
                "import chatterbex.models.hibari\n"
                "json.dump(sorted(sys.modules), open(1, 'w'))"
            )
        )
        assert "chatterbex.engine" in loaded
        heavy = {"numpy", "torch", "onnxruntime", "hibari", "scipy", "multiprocessing", "asyncio"}
        assert heavy.isdisjoint(loaded)

    def test_package_alone(self) -> None:
        code = "import sys; before = set(sys.modules); import chatterbex; print(set(sys.modules) - before)"
        assert python(code).strip() == "{'chatterbex'}"


class TestEnvironment:
    def code(self, config: str) -> str:
        return (
            "import os, json\nfrom chatterbex.engine import Engine\n"
            f"Engine({config})\njson.dump(dict(os.environ), open(1, 'w'))"
        )

    def test_thread_pools_leave_a_core_for_the_host(self) -> None:
        environment = json.loads(python(self.code("{}")))
        for pool in process._POOLS:
            assert environment[pool] == str(max(1, process.cores() - 1))

    def test_pytorch_sees_variables_that_it_reads_at_import(self) -> None:
        config = "{'env': {'PYTORCH_MPS_HIGH_WATERMARK_RATIO': '0.9'}}"
        environment = json.loads(python(self.code(config)))
        assert environment["PYTORCH_ENABLE_MPS_FALLBACK"] == "1"
        assert environment["PYTORCH_MPS_LOW_WATERMARK_RATIO"] == "0.9"
        environment = json.loads(python(self.code("{'env': {'PYTORCH_ENABLE_MPS_FALLBACK': '0'}}")))
        assert environment["PYTORCH_ENABLE_MPS_FALLBACK"] == "0"

    def test_threads_are_settable(self) -> None:
        environment = json.loads(python(self.code("{'threads': 3}"), OMP_NUM_THREADS="7"))
        assert environment["OMP_NUM_THREADS"] == "3"
        assert environment["OPENBLAS_NUM_THREADS"] == "3"

    def test_the_users_settings_are_kept(self) -> None:
        environment = json.loads(python(self.code("{}"), OMP_NUM_THREADS="7"))
        assert environment["OMP_NUM_THREADS"] == "7"

    def test_env_comes_first(self) -> None:
        config = "{'threads': 3, 'env': {'OMP_NUM_THREADS': '5', 'GONE': None, 'NEW': 'x'}}"
        environment = json.loads(python(self.code(config), GONE="here"))
        assert environment["OMP_NUM_THREADS"] == "5"
        assert environment["NEW"] == "x"
        assert "GONE" not in environment

    def test_it_is_set_before_numpy_is_imported(self) -> None:
        code = (
            "from chatterbex.engine import Engine\nimport sys, os\n"
            "import chatterbex.engine\nassert 'numpy' not in sys.modules\n"
            "engine = Engine({'threads': 1, 'extra_models': {'fake': 'fake_model:FakeModel'}})\n"
            "assert 'numpy' not in sys.modules and os.environ['OMP_NUM_THREADS'] == '1'\n"
            "engine.submit({'op': 'load', 'id': 1, 'model': 'fake'}); engine.step()\n"
            "assert 'numpy' in sys.modules\n"
            "open(1, 'w').write('good')"
        )
        assert python(code) == "good"

    def test_progress_bars_are_off(self) -> None:
        environment = json.loads(python(self.code("{}"), TQDM_DISABLE="0"))
        assert environment["TQDM_DISABLE"] == "1"
        assert environment["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"

    def test_cores(self) -> None:
        assert 1 <= process.cores() <= (os.cpu_count() or 1)
        assert process.default_threads() >= 1


class TestForking:
    @pytest.mark.usefixtures("driver")
    @pytest.mark.parametrize("name", ["fork", "forkpty"])
    def test_is_refused(self, name: str) -> None:
        with pytest.raises(RuntimeError, match="BEAM"):
            getattr(os, name)()

    @pytest.mark.usefixtures("driver")
    def test_is_refused_to_libraries(self) -> None:
        import multiprocessing

        worker = multiprocessing.get_context("fork").Process(target=print)
        with pytest.raises(RuntimeError, match="BEAM"):
            worker.start()

    @pytest.mark.usefixtures("driver")
    def test_subprocess_works(self) -> None:
        code = "import sys; print(sys.stdin.read().upper()); sys.exit(3)"
        done = subprocess.run([sys.executable, "-c", code], input=b"hello", capture_output=True)
        assert (done.returncode, done.stdout) == (3, b"HELLO" + os.linesep.encode())
        assert subprocess.check_output("echo shell", shell=True).strip() == b"shell"

    @pytest.mark.usefixtures("driver")
    def test_the_message_names_the_way_out(self) -> None:
        with pytest.raises(RuntimeError, match="subprocess"):
            os.fork()

    def test_inside_a_request(self, driver: Driver) -> None:
        model = driver.load()
        name, payload = driver.ask("generate", model_id=model, text="eval: __import__('os').fork()")
        assert name == "failed"
        assert "os.fork is refused" in payload["message"]
        text = "eval: __import__('subprocess').check_output(['echo', 'hi'])"
        _, payload = driver.ask("generate", model_id=model, text=text)
        assert payload["metadata"]["value"] == repr(b"hi\n")


# pytest puts its own streams in place between a fixture and its test, so each test redirects.
@pytest.mark.usefixtures("restored")
class TestLog:
    def test_whole_lines(self) -> None:
        sink = log.redirect()
        print("one", end="")
        assert sink.drain() == []
        print(" two\nthree")
        print("wrong", file=sys.stderr)
        assert sink.drain() == [("info", "one two"), ("info", "three"), ("warning", "wrong")]
        assert sink.drain() == []

    def test_logging(self) -> None:
        sink = log.redirect()
        logger = logging.getLogger("some.library")
        logger.debug("quiet")
        logger.info("quiet")
        logger.warning("careful %d", 5)
        logger.critical("help")
        logging.getLogger("chatterbex").info("ours")
        assert sink.drain() == [
            ("warning", "some.library: careful 5"),
            ("error", "some.library: help"),
            ("info", "chatterbex: ours"),
        ]

    def test_levels(self) -> None:
        names = [log.level_of(number) for number in (5, 10, 20, 25, 30, 40, 50)]
        assert names == ["debug", "debug", "info", "info", "warning", "error", "error"]

    def test_exceptions_stay_together(self) -> None:
        sink = log.redirect()
        try:
            raise ValueError("oh")
        except ValueError:
            logging.getLogger("lib").exception("it went wrong")
        [(level, text)] = sink.drain()
        assert level == "error"
        assert text.startswith("lib: it went wrong\nTraceback")
        assert text.endswith("ValueError: oh")

    def test_bad_logging_call_harms_nobody(self) -> None:
        sink = log.redirect()
        logging.getLogger("lib").warning("%d", "not a number")
        assert any("Logging error" in text for _, text in sink.drain())

    def test_warnings(self) -> None:
        sink = log.redirect()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            # catch_warnings puts its own hook in place of ours
            warnings.showwarning = log._redirection._warn
            warnings.warn("old ways", DeprecationWarning, stacklevel=1)
        [(level, text)] = sink.drain()
        assert level == "warning"
        assert text.startswith("DeprecationWarning: old ways (")
        assert "test_process.py" in text

    def test_warnings_in_a_fresh_python(self) -> None:
        code = (
            "from chatterbex.engine import Engine\nimport warnings\nengine = Engine({})\n"
            "warnings.warn('careful')\nopen(1, 'w').write(repr(engine.drain_log()))"
        )
        [(level, text)] = eval(python(code))
        assert (level, text.split(" (")[0]) == ("warning", "UserWarning: careful")

    def test_nothing_reaches_the_real_streams(self) -> None:
        code = (
            "from chatterbex.engine import Engine\nimport sys, logging, warnings, threading\n"
            "engine = Engine({})\nprint('a')\nprint('b', file=sys.stderr)\n"
            "sys.__stdout__.write('c\\n')\nsys.stdout.buffer.write(b'd\\n')\n"
            "logging.getLogger().error('e')\nwarnings.warn('f')\n"
            "thread = threading.Thread(target=lambda: 1 / 0)\nthread.start()\nthread.join()\n"
            "assert len(engine.drain_log()) >= 6"
        )
        assert python(code) == ""

    def test_progress_bars_do_not_flood(self) -> None:
        sink = log.redirect()
        for percent in range(100):
            print(f"\r{percent}% |####", end="", file=sys.stderr)
        assert sink.drain() == []
        print("\r100% done", file=sys.stderr)
        print("windows\r")
        assert sink.drain() == [("warning", "100% done"), ("info", "windows")]

    def test_carriage_return_and_line_feed_apart(self) -> None:
        sink = log.redirect()
        for piece in ("li", "ne\r", "\nnext", "\r", "\n"):
            sys.stdout.write(piece)
        assert sink.drain() == [("info", "line"), ("info", "next")]

    def test_text_without_a_line_end_is_bounded(self) -> None:
        sink = log.redirect()
        for _ in range(1_000):
            sys.stdout.write("x" * 1_000)
        raw = sys.stdout.buffer
        assert len(raw._pending) <= 4 * log.MAX_LENGTH
        print()
        [(_, text)] = sink.drain()
        assert len(text) <= log.MAX_LENGTH + 3

    def test_lines_are_bounded_and_counted(self) -> None:
        sink = log.redirect()
        for number in range(log.MAX_LINES + 25):
            print(number)
        lines = sink.drain()
        assert len(lines) == log.MAX_LINES + 1
        assert lines[0][0] == "warning"
        assert lines[0][1].startswith("25 ")
        assert lines[1] == ("info", "25")
        assert sink.drain() == []

    def test_escapes_and_control_characters_go(self) -> None:
        sink = log.redirect()
        print("\x1b[1;31mred\x1b[0m \x07bell\ttab \x00nul")
        assert sink.drain() == [("info", "red bell\ttab nul")]

    def test_blank_lines_are_left_out(self) -> None:
        sink = log.redirect()
        print("\n  \n\n")
        assert sink.drain() == []

    def test_any_text(self) -> None:
        sink = log.redirect()
        print("grüße 日本 \ud800")
        sys.stdout.buffer.write(b"broken \xff utf-8\n")
        assert sink.drain() == [("info", "grüße 日本 \\ud800"), ("info", "broken \ufffd utf-8")]

    def test_streams_look_like_streams(self) -> None:
        log.redirect()
        assert sys.stdout.isatty() is False
        assert sys.stdout.encoding == "utf-8"
        with pytest.raises(OSError, match="fileno"):
            sys.stdout.fileno()
        assert sys.stdin.read() == ""
        assert sys.stdout.writable()
        sys.stdout.flush()

    def test_threads(self) -> None:
        sink = log.redirect()

        def work(name: int) -> None:
            for number in range(50):
                sys.stdout.write(f"{name} {number}\n")

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        said = sorted(text for _, text in sink.drain())
        assert said == sorted(f"{name} {number}" for name in range(8) for number in range(50))

    def test_twice_is_once(self) -> None:
        sink = log.redirect()
        stream = sys.stdout
        assert log.redirect() is sink
        assert sys.stdout is stream
        logging.getLogger("lib").error("once")
        assert sink.drain() == [("error", "lib: once")]

    def test_restore(self, restored: None) -> None:
        before = (sys.stdin, sys.stdout, sys.stderr, logging.root.handlers[:], warnings.showwarning)
        log.redirect()
        log.restore()
        log.restore()
        after = (sys.stdin, sys.stdout, sys.stderr, logging.root.handlers[:], warnings.showwarning)
        assert before == after

    def test_a_model_s_words(self, make: Callable[..., Driver]) -> None:
        driver = make()
        model = driver.load()
        driver.ask("generate", model_id=model, text="print:aloud log:badly")
        assert driver.engine.drain_log() == [("info", "aloud"), ("error", "fake: badly")]
