"""Prepares the process that Python runs in, before libraries that read its environment are imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from chatterbex.device.environment import prepare_environment
from chatterbex.errors import ChatterbexError

_POOLS: Final = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)

_QUIET: Final = {
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Its pool warns, and may deadlock, once it is used before a subprocess starts.
    "TOKENIZERS_PARALLELISM": "false",
}


def prepare(config: Mapping[str, Any]) -> int:
    """Sets the environment variables, and refuses calls that would harm the host process.

    The size of a thread pool comes from the first of these that gives one: "env", "threads", the
    process's environment, ``default_threads()``.

    Args:
        config: "env" (dict of str to str, or None to unset) and "threads" (int from 1); each may
            be missing or None.

    Returns:
        The number of threads for a pool.

    Raises:
        ChatterbexError: A value is of the wrong type or out of range ("invalid_option").
    """
    env = config.get("env")
    if env is None:
        env = {}
    if not isinstance(env, Mapping) or not all(
        isinstance(key, str) and isinstance(value, str | None) for key, value in env.items()
    ):
        raise ChatterbexError("invalid_option", "env must be a map of strings to strings or nil")
    threads = config.get("threads")
    if threads is not None and (type(threads) is not int or threads < 1):
        raise ChatterbexError(
            "invalid_option", f"threads must be a whole number, at least 1, not {threads!r}"
        )
    os.environ.update(_QUIET)
    for name in _POOLS:
        if threads is not None:
            os.environ[name] = str(threads)
        else:
            os.environ.setdefault(name, str(default_threads()))
    for key, value in env.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value
    prepare_environment()
    refuse_fork()
    return threads or default_threads()


def default_threads() -> int:
    """Returns one less than the number of cores that this process may use, but at least 1.

    The remaining core is for the host's own schedulers.
    """
    return max(1, cores() - 1)


def cores() -> int:
    """Returns how many cores this process may use, by its affinity and its cgroup's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        pass
    return count


def refuse_fork() -> None:
    """Makes ``os.fork`` and ``os.forkpty`` raise; ``subprocess`` keeps working.

    A forked child would have the host's memory and locks, but only one of its threads.
    """

    def refuse() -> NoReturn:
        raise RuntimeError(
            "os.fork is refused: Python is embedded in the BEAM here, and a forked child would lack the "
            "BEAM's other threads; use subprocess, or multiprocessing with the 'spawn' method"
        )

    for name in ("fork", "forkpty"):
        if hasattr(os, name):
            setattr(os, name, refuse)
