"""Signals that ask the program to end: raised as Interrupted, or held back while there are results to report."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


class Interrupted(BaseException):
    """A signal that asks the program to end, outside of a run."""


class Signals:
    """SIGINT, SIGTERM and SIGHUP.

    While `is_held`, the first signal only stops the load that is under way (`stop_load`, which is told its name), so
    that its figures are reported. A second signal is raised all the same. `received` is the number of the last one.
    """

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
    received = 0
    is_held = False
    stop_load: Callable[[str], object] | None = None

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it; 0 without a signal."""
        return self.received and 128 + self.received

    @property
    def name(self) -> str:
        """Of the signal that was received."""
        return signal.Signals(self.received).name

    def handle(self, number: int, _: object) -> None:
        again, self.received = self.received, number
        if again or not self.is_held:
            raise Interrupted
        if self.stop_load:
            self.stop_load(self.name)

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Signals are handled in this block; then they are what they were before."""
        self.received, before = 0, {}
        with contextlib.suppress(ValueError):  # only the main thread may set handlers: elsewhere they stay as they are
            for name in self.NAMES:
                number = getattr(signal, name)
                if name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                    before[name] = signal.signal(number, self.handle)
        try:
            yield
        finally:
            self.is_held = False
            for name, handler in before.items():
                signal.signal(getattr(signal, name), handler)


signals = Signals()  # a process has only one set of them
