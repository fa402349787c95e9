"""Ending a run on a signal: what is raised once all is saved, and the flag that the loop looks at."""

import signal
import threading
from types import FrameType


class Interrupted(RuntimeError):
    """The run was asked to stop; all is saved.

    Args:
        message: what to say.
        number: the signal that asked.
    """

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.code = 128 + number  # the exit code that shells and schedulers give a process which this signal ended


class StopSignal:
    """Turns the first SIGINT or SIGTERM into a flag, so that a run can save before it ends. A second one kills."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self.previous = {s: signal.signal(s, self._receive) for s in (signal.SIGINT, signal.SIGTERM)}
        else:
            self.previous = {}
        return self

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def __exit__(self, *_: object) -> None:
        self._restore()
