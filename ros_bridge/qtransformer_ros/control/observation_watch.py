"""Whether what came in may be decided on: fresh, of one moment, and not refused again and again."""

from qtransformer_datasets.rosbag.shared_joints import topic_of
from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS
from qtransformer_ros.control.intake import Intake
from qtransformer_ros.control.runtime_settings import RuntimeSettings


class ObservationWatch:
    """What speaks against the newest samples; each complaint is a word, a colon and a sentence."""

    def __init__(self, intake: Intake, settings: RuntimeSettings) -> None:
        self._intake, self._settings = intake, settings
        self._counted_from: dict[str, int] = {}

    def complaint(self) -> str:
        """The first topic, or part of one, that cannot be trusted now, and why; "" if all can."""
        if self._intake.instruction is None:
            return "waiting: for an instruction"
        return next(filter(None, map(self._complaint_about, self._intake.required)), "")

    def is_skewed(self) -> bool:
        """Whether the stamps of an observation of now are too far apart to describe one moment."""
        return self._intake.samples.skew_s(self._intake.observed) > self._settings.max_sync_skew_s

    def skew_complaint(self) -> str:
        """Why they are: a stream that stopped, or clocks that do not agree."""
        samples, observed = self._intake.samples, self._intake.observed
        stamps, skew_s = samples.stamps(observed), samples.skew_s(observed)
        oldest, newest = min(stamps, key=stamps.__getitem__), max(stamps, key=stamps.__getitem__)
        waited_s = (samples[newest].received_ns - samples[oldest].received_ns) / NANOSECONDS
        # What the time between their receipts does not explain, clocks or delays do.
        if skew_s - waited_s <= self._settings.max_sync_skew_s:
            age = samples.age_s(oldest) or 0.0
            apart = f"while {newest} went on: their stamps are {skew_s:.3f} s apart"
            return f"{self._stale(oldest)}: {oldest}: nothing new for {age:.2f} s, {apart}"
        return f"skew: stamps of one observation are {skew_s:.3f} s apart; synchronise the clocks"

    def is_complete(self, used: dict[str, int]) -> bool:
        """Whether every topic has a sample newer than the last one used (topic to stamp [ns]), all of one instant."""
        stamps = self._intake.samples.stamps(self._intake.required)
        if len(stamps) < len(self._intake.required) or len(set(stamps.values())) != 1:
            return False
        return all(stamp > used.get(topic, -1) for topic, stamp in stamps.items() if topic in self._intake.observed)

    def count_from_here(self) -> None:
        """Fresh samples are those that come from now on."""
        self._counted_from = {topic: self._intake.samples.taken(topic) for topic in self._intake.required}

    def count_all(self) -> None:
        """Fresh samples are all that ever came."""
        self._counted_from = {}

    def is_fresh(self, least: int) -> bool:
        """Whether every topic had so many samples since the count began."""
        taken = self._intake.samples.taken
        return all(taken(topic) - self._counted_from.get(topic, 0) >= least for topic in self._intake.required)

    def _complaint_about(self, topic: str) -> str:
        count, why = self._intake.rejected(topic_of(topic))
        # In lockstep nothing follows a message that was rejected.
        if count >= (1 if self._settings.lockstep else self._settings.max_consecutive_rejections):
            return f"rejected: {topic_of(topic)}: {why}"
        if self._settings.lockstep:
            return ""
        age = self._intake.samples.age_s(topic)
        if age is None:
            return f"{self._stale(topic)}: {topic}: nothing came yet"
        oldest = self._settings.image_timeout_s if self._is_camera(topic) else self._settings.joint_timeout_s
        if age > oldest:
            return f"{self._stale(topic)}: {topic}: nothing new for {age:.2f} s"
        if (lag := self._intake.samples.lag_s(topic)) > oldest:
            return f"{self._stale(topic)}: {topic}: what comes is {lag:.2f} s old: late, or by another clock"
        if self._intake.samples.frozen(topic):
            return f"{self._stale(topic)}: {topic}: the same image again and again"
        return ""

    def _is_camera(self, topic: str) -> bool:
        return topic in self._intake.cameras

    def _stale(self, topic: str) -> str:
        return "image_stale" if self._is_camera(topic) else "joints_stale"
