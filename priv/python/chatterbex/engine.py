"""The engine: the only entry point to Python. It accepts commands, runs in steps and returns events."""

from __future__ import annotations

import logging
import os
import sys
from collections import OrderedDict, deque
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from chatterbex import log, process, registry
from chatterbex.errors import ChatterbexError, wrap
from chatterbex.host import Call, Host
from chatterbex.model import Request
from chatterbex.worker import Worker, wait_a_moment

Event = tuple[int, str, dict[str, Any], bool]
"""(id, name, payload, final): a final event is the last one with its id."""

_REMEMBERED: Final = 4_096
_logger = logging.getLogger("chatterbex")


class Engine:
    """Runs models step by step.

    Call all methods from one thread. A command is a dict with "op" and "id". Use each id for one
    command only, for as long as the process lives.

    - load: "model" (str), "options" (dict). Events: "loading" {"phase", "seconds"} as each phase
      begins (seconds since the load began), "loaded" {info}, later perhaps "fallback" {...};
      final: "failed", "cancelled" {} (while loading) or "unloaded" {}. When a model fails, its own
      "failed" event comes before those of its requests.
    - unload: "model_id" (int). The model's requests fail as "cancelled". Final: "done" {}.
    - generate: "model_id", "text" (str), "stream" (bool), "options" (dict). Events: "started" {},
      and when streaming "chunk" {"samples", "metadata"}; final: "done" {"samples" (empty when
      streaming), "sample_rate", "metadata"}, "failed" or "cancelled" {}.
    - call: "model_id", "function" (str), "arguments" (dict). Final: "done" {...}, "failed" or
      "cancelled" {}.
    - info: "model_id". Final: "done" {info} or "failed".
    - watermarked: "samples" (bytes of float32, one channel), "sample_rate" (int). Needs no model.
      Final: "done" {"watermarked": bool, "confidence": float} or "failed".

    "failed" carries {"reason", "message", "details"}; see ``chatterbex.errors``.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Prepares this process. No model is loaded yet.

        Args:
            config: "env" (dict of str to str or None) to set, "threads" (int from 1, default: one
                less than the number of cores) for all thread pools, "extra_models" (dict of name to
                "module:Class") to register. Other keys are ignored.

        Raises:
            ChatterbexError: The config is invalid ("invalid_option").
        """
        self._sink = log.redirect()
        process.prepare(config)
        extra = config.get("extra_models")
        if not isinstance(extra, Mapping | None):
            raise ChatterbexError("invalid_option", "extra_models must be a map of strings to strings")
        for name, target in (extra or {}).items():
            registry.register(name, target)
        self._commands: deque[dict[str, Any]] = deque()
        self._events: list[Event] = []
        self._hosts: dict[int, Host] = {}
        self._cancelled: OrderedDict[int, None] = OrderedDict()
        self._worker = Worker()
        self._answers: dict[int, Future[dict[str, Any]]] = {}

    # -- what Rust calls ------------------------------------------------------------------------

    def submit(self, command: Mapping[str, Any]) -> None:
        """Queues a command; the next step executes it.

        An invalid command gets a "failed" event. A command without an id cannot be answered, so it is
        logged.
        """
        if isinstance(command, Mapping) and _is_int(command.get("id")):
            self._commands.append(dict(command))
        else:
            _logger.error("a command without a whole number as its id was ignored: %.200r", command)

    def cancel(self, id: int) -> None:
        """Cancels a request, a call or a load that is not done; its final event is "cancelled".

        A cancel may overtake its command, so an unknown id is remembered for a while. Cancelling
        something that is already done is not an error.
        """
        host = self._hosts.get(id)
        if self._knows(id) or (host and host.loading):
            self._drop(id)
            self._emit(id, "cancelled", {}, True)
        elif host is None:
            self._cancelled[id] = None
            if len(self._cancelled) > _REMEMBERED:
                self._cancelled.popitem(last=False)

    def _knows(self, id: int) -> bool:
        return id in self._answers or any(host.has(id) for host in self._hosts.values())

    def step(self) -> list[Event]:
        """Executes all queued commands, then runs one step of every model that has work.

        Returns:
            The resulting events, in order.
        """
        while self._commands:
            self._execute(self._commands.popleft())
        for host in list(self._hosts.values()):
            host.step()
        self._bury()
        self._answer()
        events, self._events = self._events, []
        return events

    def busy(self) -> bool:
        """Returns whether a step would do anything."""
        return bool(self._commands or self._events or self._answers) or self._hosts_busy()

    def _hosts_busy(self) -> bool:
        return any(host.busy() for host in self._hosts.values())

    def _answer(self) -> None:
        """Sends the results of finished work. If there is nothing else to do, waits a moment for them."""
        if self._answers and not (self._commands or self._events or self._hosts_busy()):
            wait_a_moment(list(self._answers.values()))
        for id in [id for id, answer in self._answers.items() if answer.done()]:
            try:
                self._emit(id, "done", self._answers.pop(id).result(), True)
            except Exception as error:
                self._emit(id, "failed", wrap(error, "generation_failed").payload(), True)

    def drain_log(self) -> list[tuple[str, str]]:
        """Takes everything that was printed, logged or warned about since the last call.

        Returns:
            (level, text) with level "debug", "info", "warning" or "error", oldest first.
        """
        return self._sink.drain()

    def rest(self) -> None:
        """Waits until no other thread computes for a model. Call it last, before the process ends."""
        lanes = sys.modules.get("chatterbex.lanes")
        if lanes is not None:
            lanes.rest()

    # -- commands -------------------------------------------------------------------------------

    def _execute(self, command: dict[str, Any]) -> None:
        id = command["id"]
        if id in self._cancelled:
            del self._cancelled[id]
            self._emit(id, "cancelled", {}, True)
            return
        try:
            if self._drop(id):
                # One id has one listener, who could not tell the two commands' events apart.
                raise ChatterbexError("invalid_option", f"the id {id} is in use already")
            self._act(id, command)
        except Exception as error:
            self._emit(id, "failed", wrap(error, "generation_failed").payload(), True)

    def _act(self, id: int, command: dict[str, Any]) -> None:
        match command.get("op"):
            case "load":
                name = _get(command, "model", str)
                options = _get(command, "options", Mapping, {})
                self._hosts[id] = Host(id, name, dict(options), self._emit)
            case "unload":
                host = self._hosts.get(_get(command, "model_id", int))
                if host is not None:
                    self._drop(host.id)
                    self._emit(host.id, "unloaded", {}, True)
                self._emit(id, "done", {}, True)
            case "generate":
                self._host(command).add(_request(id, command))
            case "call":
                function = _get(command, "function", str)
                arguments = _get(command, "arguments", Mapping, {})
                self._host(command).add(Call(id, function, arguments))
            case "info":
                self._emit(id, "done", self._host(command).info(), True)
            case "watermarked":
                self._answers[id] = self._worker.start(
                    id, partial(_watermarked, command), alone=not self._hosts_busy()
                )
            case other:
                raise ChatterbexError("not_supported", f"the engine has no command {other!r}")

    def _host(self, command: Mapping[str, Any]) -> Host:
        model_id = _get(command, "model_id", int)
        host = self._hosts.get(model_id)
        if host is None:
            raise ChatterbexError(
                "engine_crashed",
                f"the model with id {model_id} is not loaded: it failed, was unloaded, or the engine was "
                "restarted since; load it again",
            )
        return host

    def _drop(self, id: int) -> bool:
        """Ends the work with this id without sending an event. Returns whether there was any."""
        answer = self._answers.pop(id, None)
        if answer is not None:
            answer.cancel()
            return True
        host = self._hosts.get(id)
        if host is not None:
            host.end(ChatterbexError("cancelled", "the model was unloaded before the work was done"))
        else:
            host = next((host for host in self._hosts.values() if host.has(id)), None)
            if host is not None:
                host.forget(id)
        self._bury()
        return host is not None

    def _bury(self) -> None:
        for host in [host for host in self._hosts.values() if host.ended]:
            del self._hosts[host.id]

    def _emit(self, id: int, name: str, payload: dict[str, Any], final: bool) -> None:
        self._events.append((id, name, payload, final))


def _request(id: int, command: Mapping[str, Any]) -> Request:
    text = command.get("text")
    if not isinstance(text, str):
        raise ChatterbexError("invalid_text", f"text must be a string, not {_type(text)}")
    options = dict(_get(command, "options", Mapping, {}))
    seed = options.get("seed")
    if seed is None:
        options["seed"] = int.from_bytes(os.urandom(4), "little")
    elif not _is_int(seed):
        raise ChatterbexError("invalid_option", f"seed must be a whole number, not {seed!r}")
    return Request(id, text, _get(command, "stream", bool, False), options)


def _watermarked(command: Mapping[str, Any]) -> dict[str, Any]:
    try:
        from chatterbex import watermark
    except ModuleNotFoundError as error:
        raise registry.missing_package("the search for a watermark", error) from error
    return watermark.answer(command)


def _get(command: Mapping[str, Any], key: str, kind: type, default: Any = None) -> Any:
    value = command.get(key)
    if value is None and default is not None:
        return default
    if not (_is_int(value) if kind is int else isinstance(value, kind)):
        op = command.get("op")
        raise ChatterbexError(
            "invalid_option", f"{key} of the command {op} must be {kind.__name__}, not {_type(value)}"
        )
    return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _type(value: object) -> str:
    return "missing" if value is None else type(value).__name__
