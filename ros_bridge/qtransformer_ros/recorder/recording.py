"""Episodes as bags: when one begins and ends, and what its label says.

Fed with raw messages and told the time; no ROS, no threads.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rosbags.typesys.store import Typestore

from qtransformer.errors import DatasetError, QTransformerError
from qtransformer.files import write_json
from qtransformer_datasets.rosbag.contract_entries import EventRule
from qtransformer_datasets.rosbag.index import BagIndex, deserialize
from qtransformer_datasets.rosbag.ros_messages import word_of
from qtransformer_datasets.rosbag.storage import Bag, RawMessage
from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.recorder.audit import Audit, audit
from qtransformer_ros.recorder.recorded_bag import RecordedBag, TopicInfo, disk_errors, next_name

FLUSH_S = 1.0
"""What a killed recorder may lose [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderSettings:
    auto: bool = False
    """Begin and end with the contract's `episodes`, rather than by request."""
    pre_roll_s: float = 1.0
    """With `auto`: how long before the start event samples are kept [s], for what is observed first may precede it."""
    post_roll_s: float = 0.3
    """How long after the end samples are kept [s]: the last ones are still on their way."""


class Recorder:
    """One episode after the other.

    `describe()` gives the label's own words (task, seed, ...) when an episode ends. `log(is_error, text)` is told what happens.
    """

    def __init__(
        self,
        folder: Path,
        contract: TopicContract,
        types: Typestore,
        settings: RecorderSettings,
        describe: Callable[[], Mapping[str, str]],
        log: Callable[[bool, str], None],
    ) -> None:
        self.folder, self.contract, self.types, self.settings = folder, contract, types, settings
        self.describe, self.log = describe, log
        self.bag: RecordedBag | None = None
        """The episode that is being recorded."""
        self.last: Audit | None = None
        self.error = ""
        """Why nothing could be written; forgotten with the next start."""
        self._end = float("inf")
        self._flushed = 0.0
        self._before: list[tuple[TopicInfo, RawMessage]] = []
        self._held: dict[str, tuple[TopicInfo, RawMessage]] = {}
        """Topic to its newest message, of those that hold until the next one: an instruction, and what is commanded."""
        self._lasting_ns = {topic.topic: round(contract.tolerance_of(topic) * NANOSECONDS) for topic in contract.commanded}
        """Topic to for how long a command holds."""
        self._newest_ns = 0

    @property
    def is_ending(self) -> bool:
        """Whether the episode has ended, and only its last samples are waited for."""
        return self.bag is not None and self._end < float("inf")

    def receive(self, info: TopicInfo, message: RawMessage, now_s: float) -> None:
        """A message; `now_s` is monotonic."""
        self._newest_ns = max(self._newest_ns, message.receive_ns)
        word = self._word(info, message)
        if self._marks(message.topic, word, "start"):
            self._guarded(self._finish)
            self.last, before = None, self._before
            self._guarded(lambda: self._begin(before))
        if self.bag is not None:
            self._guarded(lambda: self._write(info, message))
        else:
            self._keep(info, message)
        if self.bag is not None and self._marks(message.topic, word, "discard"):
            self.discard()
        elif self.bag is not None and not self.is_ending and self._marks(message.topic, word, "stop"):
            self._end = now_s + self.settings.post_roll_s

    def tick(self, now_s: float) -> None:
        """Call often: ends what is to end, and flushes."""
        if self.bag is not None and now_s >= self._end:
            self._guarded(self._finish)
        elif self.bag is not None and now_s - self._flushed >= FLUSH_S:
            self._flushed = now_s
            self._guarded(self.bag.flush)

    def start(self) -> str:
        """Begin an episode by request. Returns its name. Raises DatasetError."""
        if self.settings.auto:
            raise DatasetError(
                "episodes begin with the contract's events; run the recorder without `auto` to begin them by request"
            )
        if self.bag is not None and not self.is_ending:
            raise DatasetError(f"{self.bag.path.name} is being recorded; stop or discard it first")
        self._guarded(self._finish)
        self._begin([])
        assert self.bag
        return self.bag.path.name

    def stop(self, now_s: float) -> None:
        """End the episode by request, once its last samples have come. Raises DatasetError where there is none."""
        if self.bag is None:
            raise DatasetError(self.error or "nothing is being recorded; start first")
        self._end = min(self._end, now_s + self.settings.post_roll_s)

    def discard(self) -> str:
        """Throw away the episode that is recorded, or else the last one if its audit failed. Returns its name.

        Raises:
            DatasetError: there is neither.
        """
        if self.bag is not None:
            bag, self.bag, self._end = self.bag, None, float("inf")
            bag.discard()
            name = bag.path.name
        elif self.last is not None and not self.last.is_ok:
            name, self.last = self.last.name, None
            with disk_errors(self.folder / name):
                shutil.rmtree(self.folder / name)
                self._audit_file(name).unlink(missing_ok=True)
        else:
            raise DatasetError("nothing is being recorded, and no audit failed; start first")
        self.log(False, f"{name}: discarded")
        return name

    def close(self) -> None:
        """End what is being recorded, at once."""
        self._guarded(self._finish)

    def status(self) -> tuple[bool, str, dict[str, str]]:
        """(all is well, one sentence, values)."""
        if self.error:
            return False, self.error, {}
        if self.bag is not None:
            counts = {topic: str(count) for topic, count in self.bag.counts.items()}
            return True, f"recording {self.bag.path.name}", {"episode": self.bag.path.name, **counts}
        if self.last is None:
            return True, "idle", {}
        values = {"episode": self.last.name, "outcome": self.last.outcome, "steps": str(self.last.steps)}
        return self.last.is_ok, self.last.text(), {**values, **{t: str(n) for t, n in self.last.counts.items()}}

    def _begin(self, before: list[tuple[TopicInfo, RawMessage]]) -> None:
        self.error, self.last, self._end, self._before = "", None, float("inf"), []
        try:
            self.bag = RecordedBag(self.folder / next_name(self.folder), self.contract, self.types)
            for info, message in self._early(before):
                self.bag.write(info, message)
        except QTransformerError as error:
            self._fail(error)
            raise
        self.log(False, f"{self.bag.path.name}: recording")

    def _early(self, before: list[tuple[TopicInfo, RawMessage]]) -> list[tuple[TopicInfo, RawMessage]]:
        """What an episode begins with: what was kept, and what holds still, such as a gripper's command from before."""
        since = {topic: self._newest_ns - lasting for topic, lasting in self._lasting_ns.items()}
        held = [own for topic, own in self._held.items() if own[1].receive_ns >= since.get(topic, 0)]
        each = {id(own[1]): own for own in (*held, *before)}  # a command may be both
        return sorted(each.values(), key=lambda own: own[1].receive_ns)

    def _write(self, info: TopicInfo, message: RawMessage) -> None:
        assert self.bag
        self.bag.write(info, message)
        if self._holds(message.topic):
            self._held[message.topic] = (info, message)

    def _finish(self) -> None:
        if self.bag is None:
            return
        bag, self.bag, self._end = self.bag, None, float("inf")
        try:
            described, index = dict(self.describe()), bag.index()
            described["task"] = described.get("task") or _instruction(index, self.contract)
            own = audit(index, self.contract, bag.counts, described.get("outcome", ""), tuple(bag.problems))
            bag.publish(self._label(own, described))
        finally:
            bag.abandon()  # nothing to abandon if it was published
        self.last = own
        write_json(self._audit_file(own.name), own.to_dict())
        self.log(not own.is_ok, own.text())

    def _audit_file(self, name: str) -> Path:
        return self.folder / f"{name}.audit.json"

    def _label(self, own: Audit, described: dict[str, str]) -> dict[str, str]:
        """The bag's `custom_data`."""
        label = {**described, "outcome": own.outcome, "audit": own.verdict()}
        for rule, word in ((self.contract.outcome, own.outcome), (self.contract.instruction, described["task"])):
            if rule and rule.custom_data:
                label[rule.custom_data] = word
        return label

    def _keep(self, info: TopicInfo, message: RawMessage) -> None:
        """What came between episodes: instructions and commands hold, samples count for a while, events not at all."""
        if self._holds(message.topic):
            self._held[message.topic] = (info, message)
        if self.settings.auto and not self._is_instruction(message.topic) and message.topic not in self.contract.event_topics():
            oldest = message.receive_ns - round(self.settings.pre_roll_s * NANOSECONDS)
            self._before = [kept for kept in self._before if kept[1].receive_ns >= oldest]
            self._before.append((info, message))

    def _holds(self, topic: str) -> bool:
        return topic in self._lasting_ns or self._is_instruction(topic)

    def _is_instruction(self, topic: str) -> bool:
        return self.contract.instruction is not None and topic == self.contract.instruction.topic

    def _word(self, info: TopicInfo, message: RawMessage) -> str:
        if not self.settings.auto or message.topic not in self.contract.event_topics():
            return ""
        bag = Bag(self.folder, (), {message.topic: info.type}, {}, {}, is_packed=False)
        try:
            return word_of(deserialize(bag, message))
        except (DatasetError, AttributeError):
            return ""

    def _marks(self, topic: str, word: str, kind: str) -> bool:
        rule: EventRule | None = getattr(self.contract.episodes, kind, None) if self.settings.auto else None
        return rule is not None and topic == rule.topic and rule.matches(word)

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except QTransformerError as error:
            self._fail(error)

    def _fail(self, error: QTransformerError) -> None:
        """Said once: without a bag nothing more is written until the next start."""
        if self.bag is not None:
            self.bag.abandon()
            self.bag = None
        self._end, self._before = float("inf"), []
        if self.error != str(error):
            self.error = str(error)
            self.log(True, self.error)


def _instruction(index: BagIndex, contract: TopicContract) -> str:
    rule = contract.instruction
    said = [word for _, word in index.words.get(rule.topic, [])] if rule else []
    return (rule.text if rule else "") or (said[-1] if said else "")
