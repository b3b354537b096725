"""Stop cleanly: after Ctrl-C, after SIGTERM, and when the time is up."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping

from sparc.config.options import TimeOptions
from sparc.errors import InvalidConfig, TimeUp


class Stop:
    """Callable that returns True once a signal has asked for the end."""

    def __init__(self) -> None:
        self.received: list[int] = []
        """Signals so far."""
        self.error: KeyboardInterrupt = KeyboardInterrupt()
        """The interruption to raise when the work has stopped."""

    def __call__(self) -> bool:
        """Return True after a signal."""
        return bool(self.received)


class _Alarm:
    """Handler of SIGALRM in `time_limit`."""

    def __init__(self, limit: str) -> None:
        self.limit = limit

    def __call__(self, number: int, frame: object) -> None:
        raise TimeUp(self.limit)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Yield a function that returns True after SIGINT, SIGTERM or the end of `time_limit`.

    So training can stop after its step. A second signal interrupts at once. Outside the main thread Python allows no
    handlers, so signals act as before.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: object) -> None:
        if stop.received:
            _restore(before)  # a third signal does what it did before
            raise KeyboardInterrupt
        if isinstance(alarm := before[number], _Alarm):
            stop.error = TimeUp(alarm.limit)
        stop.received.append(number)

    before: dict[int, object] = {number: signal.signal(number, note) for number in _signals()}
    try:
        yield stop
    finally:
        _restore(before)


@contextlib.contextmanager
def time_limit(options: TimeOptions) -> Iterator[None]:
    """Interrupt the block after the option `max-time`, as Ctrl-C does: TimeUp (KeyboardInterrupt), or `stop_on_signal`.

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

    before = signal.signal(signal.SIGALRM, _Alarm(str(options.max_time)))
    left, interval = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, before)


def _signals() -> list[signal.Signals]:
    """Return the signals that stop a training. Alarms are among them in `time_limit`; others are the program's."""
    is_limited = hasattr(signal, "SIGALRM") and isinstance(signal.getsignal(signal.SIGALRM), _Alarm)
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGALRM] if is_limited else [])]


def _restore(handlers: Mapping[int, object]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)  # type: ignore[arg-type]
