"""The pass for GPUs on the simulated MPS device: few shapes, nothing left behind, one transfer for a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: no T3 to test")

from speaking import Listener, gpu_pass, request, session_of  # noqa: E402

import simulated_mps  # noqa: E402
from chatterbex.device import stray_tensors  # noqa: E402
from chatterbex.t3 import T3, Body, T3GpuPass, T3Session, rows_of_request  # noqa: E402
from synthetic import t3 as synthetic  # noqa: E402

Models = Callable[..., T3]


def on_mps(t3: T3, requests: int, **options: Any) -> T3Session:
    body = Body.of(t3.config, t3.weights).to("mps")
    way = T3GpuPass(body, requests * rows_of_request(t3.config), **options)
    return T3Session(t3.front, way, requests)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("name", ["english", "nano"])
def test_the_device_draws_the_same_as_the_cpu(name: str, eager: bool, model: Models, mps: Any) -> None:
    config = synthetic.tiny(name)
    t3 = model(config)
    requests = [request(config, id, text=20 + id, seed=id, max_tokens=12) for id in range(3)]

    def drawn(session: T3Session) -> dict[Any, list[int]]:
        for one in requests:
            session.admit(one)
        return Listener(session).run().drawn

    there = on_mps(t3, 4, eager_attention=eager)
    assert drawn(there) == drawn(session_of(t3, 4, way=gpu_pass))
    assert stray_tensors({"t3": there._pass}, "mps") == []


def shapes_of(t3: T3, requests: int, tokens: int) -> int:
    """The distinct operators and shapes of requests that speak one after another for the given lengths."""
    config = t3.config
    session = on_mps(t3, requests)
    with simulated_mps.counting_shapes() as shapes:
        listener = Listener(session)
        for id in range(requests):
            session.admit(request(config, id, text=20 + 3 * id, seed=id, max_tokens=tokens))
            listener.step()
        listener.run()
    assert all(len(listener.drawn[id]) == tokens for id in range(requests))
    return len(shapes)


def test_the_number_of_shapes_does_not_grow_with_the_tokens(model: Models, mps: Any) -> None:
    """On MPS each new shape is compiled. A cache that grew with each token had one for every token."""
    t3 = model(synthetic.tiny("nano"))
    few, many = shapes_of(t3, 1, 20), shapes_of(t3, 1, 300)
    # One more length of attention: 320 positions are two buckets of 256.
    assert many <= 2 * few
    alone, crowd = shapes_of(t3, 8, 20), shapes_of(t3, 8, 300)
    # Batches of 1, 2, 4 and 8, over two lengths.
    assert crowd <= 2 * alone
    assert crowd <= 8 * few
