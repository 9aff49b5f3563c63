"""The latch of an e-stop: what presses it, and what speaks against releasing it."""

from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS
from qtransformer_ros.control.buffer import Clock

STILL_PRESSED = "the e-stop topic still says pressed"


class EstopLatch:
    """Latched by a service or by a topic, and only ever released by request.

    `timeout_s`: silence of the topic that counts as pressed [s], while `watched`; 0: it need not be heard.
    """

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock, self._timeout_s = clock, timeout_s
        self.watched = False
        self._latched = self._pressed = self._heard = False
        self._heard_ns = 0

    @property
    def latched(self) -> bool:
        return self._latched

    def latch(self) -> None:
        self._latched = True

    def release(self) -> str:
        """Unlatch. Returns why that is not to be, and it stays latched; "" if it was released."""
        if not (why := self.reason_against_release()):
            self._latched = False
        return why

    def watch(self) -> None:
        """From now on, silence counts, and what was heard before does not: its sender may be gone."""
        self.watched, self._heard, self._heard_ns = True, False, self._clock.monotonic_ns()

    def update(self, pressed: bool) -> None:
        """A message of the topic."""
        self._pressed, self._heard, self._heard_ns = pressed, True, self._clock.monotonic_ns()

    def reason_to_latch(self) -> str:
        """Why it is to be latched now, without anybody having pressed it; "" if it need not."""
        if not self._is_silent():
            return ""
        return f"estop: its topic was silent for more than {self._timeout_s:g} s"

    def is_unheard(self) -> bool:
        """Whether its topic must be heard, and never was."""
        return bool(self._timeout_s) and not self._heard

    def reason_against_release(self) -> str:
        """Why it is not to be unlatched now; "" if it may."""
        if self._pressed:
            return STILL_PRESSED
        return "the e-stop topic is silent" if self._is_silent() else ""

    def _is_silent(self) -> bool:
        silent_s = (self._clock.monotonic_ns() - self._heard_ns) / NANOSECONDS
        return bool(self._timeout_s and self.watched and silent_s > self._timeout_s)
