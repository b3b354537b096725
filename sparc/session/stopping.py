"""Stop cleanly: after Ctrl-C, after SIGTERM, and when the time is up."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping

from sparc.config.options import TimeOptions
from sparc.errors import InvalidConfig


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True after SIGINT, SIGTERM or the end of `time_limit`.

    So training can stop after its step. A second signal interrupts at once. Outside the main thread Python allows no
    handlers, so signals act as before.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, frame: object) -> None:
        if received:
            _restore(before)  # a third signal does what it did before
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in _signals()}
    try:
        yield lambda: bool(received)
    finally:
        _restore(before)


@contextlib.contextmanager
def time_limit(options: TimeOptions) -> Iterator[None]:
    """Interrupt the block after the option `max-time`, as Ctrl-C does: KeyboardInterrupt, or `stop_on_signal`.

    Raises InvalidConfig outside the main thread, to which Python gives signals, and on Windows, which has no alarm.
    """
    seconds = options.seconds
    if seconds is None:
        yield
        return
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        raise InvalidConfig(
            "--max-time: expected the main thread of a program on Linux or macOS, found another",
            hint="leave it out, and stop the training by another signal",
        )

    before = signal.signal(signal.SIGALRM, _end)
    left, interval = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, before)


def _end(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _signals() -> list[signal.Signals]:
    """Return the signals that stop a training. Alarms are among them in `time_limit`; others are the program's."""
    is_limited = hasattr(signal, "SIGALRM") and signal.getsignal(signal.SIGALRM) is _end
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGALRM] if is_limited else [])]


def _restore(handlers: Mapping[signal.Signals, object]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)  # type: ignore[arg-type]
