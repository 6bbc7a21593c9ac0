"""Drives an engine as the native side does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chatterbex.engine import Engine, Event

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent.parent / "priv" / "python"


class Driver:
    """Drives an engine as the native side does, and keeps the events by id."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.events: dict[int, list[tuple[str, dict[str, Any], bool]]] = {}
        self.order: list[tuple[int, str]] = []
        self._ids = iter(range(1, 1_000_000))

    def send(self, op: str, **command: Any) -> int:
        """Submits a command under a new id, and returns the id."""
        id = next(self._ids)
        self.engine.submit({"op": op, "id": id, **command})
        return id

    def step(self) -> list[Event]:
        """Runs one step, and checks the contract for events, for all tests."""
        events = self.engine.step()
        for id, name, payload, final in events:
            assert type(id) is int
            assert isinstance(name, str)
            assert isinstance(payload, dict)
            assert type(final) is bool
            past = self.events.setdefault(id, [])
            assert not (past and past[-1][2]), f"{name} for {id} after its final event {past[-1]}"
            past.append((name, payload, final))
            self.order.append((id, name))
        return events

    def run(self, max_steps: int = 10_000) -> None:
        """Steps until there is nothing to do."""
        for _ in range(max_steps):
            if not self.engine.busy():
                return
            self.step()
        raise AssertionError(f"still busy after {max_steps} steps")

    def names(self, id: int) -> list[str]:
        """The names of the events of an id."""
        return [name for name, _, _ in self.events.get(id, [])]

    def payload(self, id: int, name: str) -> dict[str, Any]:
        """The payload of the one event of that name."""
        [found] = [payload for known, payload, _ in self.events[id] if known == name]
        return found

    def ask(self, op: str, **command: Any) -> tuple[str, dict[str, Any]]:
        """Sends a command, runs until everything is done, and returns the final event."""
        id = self.send(op, **command)
        self.run()
        name, payload, final = self.events[id][-1]
        assert final
        return name, payload

    def load(self, model: str = "fake", **options: Any) -> int:
        """Loads a model and returns its id."""
        id = self.send("load", model=model, options=options)
        self.run()
        assert self.names(id)[-1] == "loaded", self.events[id]
        return id

    def say(self, model: int, text: str, stream: bool = False, **options: Any) -> int:
        """Submits a text, and returns the id."""
        return self.send("generate", model_id=model, text=text, stream=stream, options={"seed": 1, **options})
