"""Compares the Chatterbox models with upstream's own code, on synthetic checkpoints of full size.

    python bench/upstream.py [nano] [turbo] [english] [--rounds N] [--threads N] [--tokens N]

Each side runs in its own process, and the two take turns, so that a busy machine disturbs both equally:
compare the ratios. The number of speech tokens is fixed, because random weights never end. It differs in
each round, because real texts do too: preparing for a new length is part of the time that people wait.

It needs the Python of bin/test (`bin/setup --dev`, `bin/test tools`), which has upstream's packages.
Upstream's release has no nano, so its turbo gets nano's sizes and weights.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "priv" / "python"), str(HERE.parent / "test" / "python")]

import command_line

TEXT = (
    "The river rose in the night, and by the morning the lower meadow was a lake. Nobody in the village "
    "had seen such a flood since the old bridge was built."
)
# GPT-2's tokenizer makes 35 tokens of TEXT. That of the synthetic checkpoints, which knows few merges, makes
# 132. So those models get the beginning of it, which comes to 34.
TEXTS = {name: "The river rose in the night, and by the" for name in ("nano", "turbo")}


# -- one side -----------------------------------------------------------------------------------------


class Ours:
    """A model of chatterbex, without the engine around it."""

    def __init__(self, name: str, folder: str, recording: str, precision: str = "float32") -> None:
        self._name, self._folder = name, folder
        self._recording = recording
        self._precision = precision
        self._text = TEXTS.get(name, TEXT)
        self._ids = iter(range(1, 10**9))

    def load_packages(self) -> None:
        from chatterbex import registry

        options = {"checkpoint": self._folder, "device": "cpu", "max_batch": 8, "precision": self._precision}
        self._loading = registry.find(self._name).load(options)
        while next(self._loading) != "files":
            pass

    def load(self) -> None:
        while True:
            try:
                next(self._loading)
            except StopIteration as stop:
                self._model = stop.value
                return

    def voice(self) -> None:
        samples, rate = read(self._recording)
        arguments = {"samples": samples, "sample_rate": rate}
        self._voice = {"saved": self._model.call("clone", arguments).result()["voice"]}

    def t3(self, tokens: int, seed: int) -> int:
        from chatterbex.t3 import T3Request

        session = self._model._scheduler._session
        text = self._model.tokenize(self._text, {})
        session.admit(T3Request(0, text, self._parts().t3, seed, max_tokens=tokens, detect_runaway=False))
        before = session.stats.tokens
        while session.busy:
            session.step()
        return session.stats.tokens - before

    def s3gen(self, tokens: int, seed: int) -> None:
        from chatterbex.s3gen import Decoding

        s3gen = self._model._runtime.way.s3gen
        Decoding(s3gen, self._parts().gen, seed).decode(speech(tokens), final=True)

    def whole(self, tokens: int, seed: int) -> float:
        return self._say([self._request(seed, tokens)])

    def first(self, tokens: int, seed: int) -> float:
        """Speaks as a stream, and stops at the first sound."""
        request = self._request(seed, tokens, stream=True)
        self._model.admit(request)
        while not (heard := [len(chunk.samples) for chunk in self._model.step()]):
            pass
        self._model.cancel(request.id)
        return heard[0] / 24_000

    def callers(self, seed: int, callers: int, *tokens: int) -> float:
        """Speaks for several callers, each of which sends its next text when one is done."""
        return self._say([self._request(seed + at, most) for at, most in enumerate(tokens)], callers)

    def _parts(self) -> Any:
        from chatterbex.voices import Voice

        return Voice.parse(self._voice["saved"], self._model.family)

    def _request(self, seed: int, tokens: int, stream: bool = False) -> Any:
        from chatterbex.model import Request

        options = {"seed": seed, "max_tokens": tokens, "retries": 0, "voice": self._voice}
        return Request(next(self._ids), self._text, stream, options)

    def _say(self, requests: list[Any], most: int = 1) -> float:
        samples, coming = 0, iter(requests)
        for request in islice(coming, most):
            self._model.admit(request)
        while self._model.busy():
            for chunk in self._model.step():
                samples += len(chunk.samples)
                if chunk.last and (request := next(coming, None)):
                    self._model.admit(request)
        return samples / 24_000


class Theirs:
    """Upstream's model, as its users run it."""

    def __init__(self, name: str, folder: str, recording: str) -> None:
        self._name, self._folder = name, folder
        self._recording = recording
        self._text = TEXTS.get(name, TEXT)

    def load_packages(self) -> None:
        from importlib import import_module

        if self._name == "english":
            self._kind = import_module("chatterbox.tts").ChatterboxTTS
        else:
            self._kind = import_module("chatterbox.tts_turbo").ChatterboxTurboTTS

    def load(self) -> None:
        if self._name == "nano":
            from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS

            LLAMA_CONFIGS["GPT2_medium"].update(n_embd=768, hidden_size=768, n_head=12, n_layer=12)
        self._tts = self._kind.from_local(self._folder, "cpu")
        if self._name != "english":
            # With the NumPy version that upstream requires it stays float32; a later one crashes.
            plain = self._tts.norm_loudness
            self._tts.norm_loudness = lambda *given: plain(*given).astype("float32")

    def voice(self) -> None:
        self._tts.prepare_conditionals(self._recording)

    def t3(self, tokens: int, seed: int) -> int:
        import torch
        from torch.nn import functional

        tts = self._tts
        torch.manual_seed(seed)
        module = sys.modules[type(tts).__module__]
        text = module.punc_norm(self._text)
        if self._name != "english":
            ids = tts.tokenizer(text, return_tensors="pt").input_ids
            return tts.t3.inference_turbo(tts.conds.t3, ids, max_gen_len=tokens - 1).shape[1]
        ids = functional.pad(tts.tokenizer.text_to_tokens(text), (1, 0), value=tts.t3.hp.start_text_token)
        ids = functional.pad(ids, (0, 1), value=tts.t3.hp.stop_text_token)
        drawn = tts.t3.inference(
            t3_cond=tts.conds.t3, text_tokens=torch.cat([ids, ids]), max_new_tokens=tokens, top_p=1.0
        )
        return drawn.shape[1]

    def s3gen(self, tokens: int, seed: int) -> None:
        import torch

        torch.manual_seed(seed)
        steps = {} if self._name == "english" else {"n_cfm_timesteps": 2}
        ids = torch.tensor(speech(tokens))
        self._tts.s3gen.inference(speech_tokens=ids, ref_dict=self._tts.conds.gen, **steps)

    def whole(self, tokens: int, seed: int) -> float:
        import torch

        t3 = self._tts.t3
        name, most = ("inference", "max_new_tokens"), tokens
        if self._name != "english":
            name, most = ("inference_turbo", "max_gen_len"), tokens - 1
        plain = getattr(t3, name[0])
        setattr(t3, name[0], lambda **given: plain(**{**given, name[1]: most}))
        try:
            torch.manual_seed(seed)
            return self._tts.generate(self._text).shape[1] / 24_000
        finally:
            delattr(t3, name[0])


def speech(tokens: int) -> list[int]:
    """Speech tokens for the vocoder alone."""
    return [(7919 * at) % 6561 for at in range(tokens)]


def read(path: str) -> tuple[bytes, int]:
    """The samples of a WAV file as float32."""
    import numpy as np

    with wave.open(path) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return (data / 32768).astype("<f4").tobytes(), file.getframerate()


def serve(side: str, name: str, folder: str, recording: str, threads: int) -> None:
    """Runs the tasks that it reads line by line, and answers how long each took."""
    answers = os.fdopen(os.dup(1), "w")
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    one: Any = (Ours if side == "ours" else Theirs)(name, folder, recording)
    for line in sys.stdin:
        task, *arguments = json.loads(line)
        began = time.perf_counter()
        try:
            answer: Any = {"result": getattr(one, task)(*arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answer["seconds"] = time.perf_counter() - began
        if task == "load_packages":
            import torch

            torch.set_num_threads(threads)
        print(json.dumps(answer), file=answers, flush=True)


# -- both sides ---------------------------------------------------------------------------------------


class Side:
    """A process that serves one side."""

    def __init__(self, side: str, name: str, folder: Path, recording: Path, threads: int) -> None:
        command = [sys.executable, __file__, "--serve", side, name, str(folder), str(recording), str(threads)]
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "NUMBA_CACHE_DIR": str(recording.parent),
            "OMP_NUM_THREADS": str(threads),
        }
        self.side = side
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, task: str, *arguments: int) -> tuple[float, Any]:
        """Seconds and result of a task."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([task, *arguments]), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "its process has ended"}
        if "error" in answer:
            raise SystemExit(f"{self.side}, {task}: {answer['error']}")
        return answer["seconds"], answer["result"]

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


class Table:
    """Rows of ours, theirs and their ratio."""

    def __init__(self, name: str) -> None:
        print(f"\n{name:<44}{'ours':>12}{'upstream':>12}{'ratio':>9}\n{'-' * 77}", flush=True)

    def row(self, what: str, ours: float, theirs: float, unit: str, digits: int = 2) -> None:
        """One line; the ratio is ours by upstream's."""
        shown = f"{what} ({unit})"
        print(f"{shown:<44}{ours:>12.{digits}f}{theirs:>12.{digits}f}{ours / theirs:>9.3f}", flush=True)


def compare(name: str, folder: Path, recording: Path, options: argparse.Namespace) -> None:
    """Measures one model."""
    table = Table(name)
    tokens, threads, seed = options.tokens, options.threads, options.seed
    seconds = tokens / 25

    def start(side: str) -> Side:
        return Side(side, name, folder, recording, threads)

    def turns(pair: list[Side], task: str, *arguments: int, rounds: int = 1) -> list[float]:
        times = [[side.ask(task, *arguments)[0] for side in pair] for _ in range(rounds)]
        return [median(column) for column in zip(*times, strict=True)]

    # Work that happens once in a process is measured in several processes, one at a time: with two models in
    # memory, the second takes up to twice as long to load, whichever it is.
    once: dict[str, list[list[float]]] = {"load_packages": [], "load": [], "voice": []}
    for _ in range(options.rounds):
        taken = {task: [] for task in once}
        for kind in ("ours", "theirs"):
            with contextlib.closing(start(kind)) as side:
                for task in once:
                    taken[task].append(side.ask(task)[0])
        for task, times in once.items():
            times.append(taken[task])
    pair = [start("ours"), start("theirs")]
    for task in once:
        turns(pair, task)
    for task, what in (("load_packages", "import"), ("load", "load")):
        table.row(what, *(median(column) for column in zip(*once[task], strict=True)), "s")
    # In the first process after installation, upstream's packages compile code and cache it.
    table.row("first voice, as installed", *once["voice"][0], "s")
    if options.rounds > 1:
        table.row(
            "first voice, later", *(median(column) for column in zip(*once["voice"][1:], strict=True)), "s"
        )
    table.row("next voice", *turns(pair, "voice", rounds=options.rounds), "s")

    drawn = [side.ask("t3", tokens, seed)[1] for side in pair]  # and what is made at the first time is there
    if min(drawn) < tokens:
        print(f"(too few tokens: {drawn}; try another --seed)")
    ours, theirs = turns(pair, "t3", tokens, seed, rounds=options.rounds)
    table.row("T3", tokens / ours, tokens / theirs, "tokens/s", 1)

    lengths = count(tokens)

    def per_second(task: str, times: int) -> list[float]:
        """Seconds of work per second of audio for each side, each time with a new length."""
        taken = []
        for _ in range(times):
            length = next(lengths)
            taken.append([side.ask(task, length, seed)[0] / length * 25 for side in pair])
        return [median(column) for column in zip(*taken, strict=True)]

    per_second("s3gen", 1)  # what is prepared once, and `tokens` is a length that was met
    table.row("S3Gen", *per_second("s3gen", options.rounds), "s per s of audio", 3)
    ours, theirs = turns(pair, "s3gen", tokens, seed, rounds=options.rounds)
    table.row("S3Gen, a length met before", ours / seconds, theirs / seconds, "s per s of audio", 3)
    ours, theirs = per_second("whole", options.rounds)
    table.row("whole, RTF", ours, theirs, "s per s of audio", 3)
    first = median(pair[0].ask("first", next(lengths), seed)[0] for _ in range(options.rounds))
    table.row(f"first sound of {seconds:g} s; upstream: the whole", first, theirs * seconds, "s")
    if options.callers:
        compare_callers(table, pair, lengths, options)
    for side in pair:
        side.close()


def compare_callers(
    table: Table, pair: list[Side], lengths: Iterator[int], options: argparse.Namespace
) -> None:
    """Measures several callers at once: ours before and after upstream's, because the machine may change."""
    callers, texts, seed = options.callers, options.texts, options.seed

    def rate(pieces: list[tuple[float, float]]) -> float:
        return sum(audio for _, audio in pieces) / sum(seconds for seconds, _ in pieces)

    def ours() -> tuple[float, float]:
        return pair[0].ask("callers", seed, callers, *islice(lengths, callers * texts))

    mine, theirs = [ours()], []
    for _ in range(options.rounds):
        theirs += [pair[1].ask("whole", length, seed) for length in islice(lengths, callers)]
        mine.append(ours())
    each = "" if texts == 1 else f", {texts} texts each"
    what = f"{callers} callers{each}; upstream: in turns"
    table.row(what, rate(mine), rate(theirs), "s of audio per s", 3)


@contextlib.contextmanager
def prepared(name: str) -> Iterator[Path]:
    """A folder with a full-size checkpoint, in which upstream finds nano under turbo's name."""
    from synthetic import checkpoints

    with tempfile.TemporaryDirectory() as folder:
        path = checkpoints.link(name, Path(folder) / name, full=True)
        if name == "nano":
            (path / "t3_turbo_v1.safetensors").symlink_to("t3_nano_v1.safetensors")
        yield path


def record(path: Path) -> Path:
    """Ten seconds of a person speaking, from the recordings in s3tokenizer."""
    from chatterbex import upstream

    source = upstream.package_folder("s3tokenizer", "s3tokenizer") / "assets" / "BAC009S0764W0121.wav"
    with wave.open(str(source)) as file:
        rate, data = file.getframerate(), file.readframes(file.getnframes())
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((data * 3)[: 2 * 10 * rate])
    return path


def main(arguments: list[str]) -> None:
    """The command line."""
    if arguments[:1] == ["--serve"]:
        side, name, folder, recording, threads = arguments[1:]
        serve(side, name, folder, recording, int(threads))
        return
    parser = command_line.parser("upstream.py", __doc__, tokens=250)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--callers", type=int, default=8, choices=range(9), help="at once; 0 leaves them out")
    parser.add_argument("--texts", type=int, default=1, help="of each caller, one after the other")
    options = command_line.parse(parser, arguments)
    with tempfile.TemporaryDirectory() as folder:
        recording = record(Path(folder) / "person.wav")
        print(f"{options.tokens} tokens, {options.threads} threads, {options.rounds} rounds")
        for name in options.models:
            with prepared(name) as path:
                compare(name, path, recording, options)


if __name__ == "__main__":
    main(sys.argv[1:])
