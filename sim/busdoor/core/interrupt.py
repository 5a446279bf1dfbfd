"""SIGINT and SIGTERM: finished work is kept, workers end at once, the exit code shows it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from time import monotonic
from types import FrameType

GRACE_S = 1.0  # that worker processes have to end after SIGTERM; then they are killed
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 3  # signals: so many mean that writing what is finished shall end too
_received: list[int] = []


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt for the first SIGINT or SIGTERM; ignore the second meanwhile.

    The third ends the process. A signal that the parent has set to be ignored (`nohup`, a shell's
    `&`) stays ignored. Only the main thread can do this; in any other one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _receive(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if len(_received) == 1:
        raise KeyboardInterrupt
    if len(_received) >= _PATIENCE:
        os._exit(128 + number)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM inside the block, which must end whole, and raise them after it.

    Only the main thread can do this; in any other one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, before[number])
        for raised in came:
            signal.raise_signal(raised)


def exit_code() -> int:
    """Return an interrupted command's exit code: 128 plus the first signal, as in shells.

    >>> exit_code()  # without a signal: as for SIGINT
    130
    """
    return 128 + (_received[0] if _received else signal.SIGINT)


def ignore_sigint() -> None:
    """Ignore SIGINT in a worker process: a terminal sends it to all; the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_pool(pool: ProcessPoolExecutor) -> None:
    """End a pool and its processes, whatever they are at, within `GRACE_S`."""
    workers = list((getattr(pool, "_processes", None) or {}).values())  # shutdown forgets them
    pool.shutdown(wait=False, cancel_futures=True)
    end_processes(workers)


def end_processes(workers: Iterable[BaseProcess]) -> None:
    """End processes: SIGTERM, and SIGKILL for those that are still there after `GRACE_S`."""
    there = [worker for worker in workers if worker.is_alive()]
    for worker in there:
        worker.terminate()
    until_s = monotonic() + GRACE_S
    for worker in there:
        worker.join(max(0.0, until_s - monotonic()))
        if worker.is_alive():
            worker.kill()
