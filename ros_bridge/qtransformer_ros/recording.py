"""Episodes as bags: when one begins and ends, what its label says, and whether it is good for anything.

Fed with raw messages and told the time; no ROS, no threads. The audit at the end of an episode is made by the code that will
read the bag: what it accepts will be read, and what it complains about would have been refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rosbags.typesys.store import Typestore

from qtransformer.errors import DatasetError, QTransformerError
from qtransformer_datasets.rosbag.index import BagIndex, check_topics, deserialize, pieces, windows
from qtransformer_datasets.rosbag.report import BagReport, report_bag
from qtransformer_datasets.rosbag.ros_messages import word_of
from qtransformer_datasets.rosbag.storage import Bag, RawMessage
from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS, Gap
from qtransformer_datasets.rosbag.topic_contract import EventRule, TopicContract
from qtransformer_ros.recorded_bag import RecordedBag, TopicInfo, next_name, write_json

RATE_SHARE = 0.9
"""Share of the rate it needs at which a topic may come."""
FLUSH_S = 1.0
"""What a killed recorder may lose [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What became of an episode."""

    name: str
    counts: dict[str, int]
    """Messages per topic, extra ones included."""
    rates_hz: dict[str, tuple[float, float]]
    """Observed topics: (found, needed)."""
    steps: int
    outcome: str
    report: BagReport
    problems: tuple[str, ...]

    @property
    def is_ok(self) -> bool:
        return not self.problems

    def verdict(self) -> str:
        """`ok`, or `failed: ...`."""
        return "ok" if self.is_ok else "failed: " + "; ".join(self.problems)

    def text(self) -> str:
        """One line for a person."""
        messages = sum(self.counts.values())
        return f"{self.name}: {self.steps} steps, {self.outcome or 'no outcome'}, {messages} messages, audit {self.verdict()}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        own = {"name": self.name, "ok": self.is_ok, "problems": list(self.problems), "steps": self.steps, "outcome": self.outcome}
        topics = [asdict(topic) for topic in self.report.topics]
        return {
            **own,
            "counts": self.counts,
            "rates_hz": self.rates_hz,
            "topics": topics,
            "gaps": [list(g) for g in self.report.gaps],
        }


def audit(
    index: BagIndex, contract: TopicContract, counts: Mapping[str, int], outcome: str = "", seen: tuple[str, ...] = ()
) -> Audit:
    """Judge an episode by what a reader will find. `outcome`: where the contract does not take it from a topic; `seen`: problems
    known already."""
    problems, gaps, steps = list(seen), list[Gap](), 0
    ticks = [contract.ticks.topic] if contract.ticks else []
    needed = dict.fromkeys([*index.topics, *contract.event_topics(), *ticks])
    missing = [topic for topic in needed if not counts.get(topic)]
    if missing:
        problems.append(f"no message on {', '.join(missing)}")
    else:
        try:
            check_topics(index.bag, contract)
            steps = _cut(index, contract, gaps, problems)
        except DatasetError as error:
            problems.append(str(error).removeprefix(f"{index.bag.path}: "))
    report = report_bag(index, gaps, int(steps > 0), tuple(problems))
    if gaps:
        problems.append(report.gaps_text())
    rates = _rates(report, contract)
    problems += [
        f"{t} came at {found:.2f} Hz and is needed at {least:.2f} Hz" for t, (found, least) in rates.items() if 0 < found < least
    ]
    outcome = _outcome(index, contract) or outcome
    if contract.outcome and not outcome:
        problems.append("nothing said how it ended")
    return Audit(
        name=index.bag.path.name,
        counts=dict(counts),
        rates_hz=rates,
        steps=steps,
        outcome=outcome,
        report=report,
        problems=tuple(problems),
    )


def _cut(index: BagIndex, contract: TopicContract, gaps: list[Gap], problems: list[str]) -> int:
    """Steps a reader will find; what keeps it from them goes to `gaps` and `problems`."""
    steps, marked = 0, windows(index, contract.episodes)
    if not marked:
        problems.append("nothing said that it started")
    for window in marked:
        try:
            own, holes = pieces(index, window, contract)
        except DatasetError as error:
            problems.append(str(error).removeprefix(f"{index.bag.path}: "))
            continue
        gaps += holes
        steps += sum(len(piece.ticks.times) - 1 for piece in own)
        if not own:
            problems.append(f"no step in which every topic has a sample: {report_bag(index).ranges_text()}")
    return steps


def _rates(report: BagReport, contract: TopicContract) -> dict[str, tuple[float, float]]:
    """A topic is needed once per tick, or as often as its tolerance says where that is longer."""
    found = {topic.topic: topic.rate_hz for topic in report.topics}
    needed = {s.topic: RATE_SHARE * min(contract.control_hz, 1 / contract.tolerance_of(s)) for s in contract.observed}
    return {topic: (found[topic], least) for topic, least in needed.items()}


def _outcome(index: BagIndex, contract: TopicContract) -> str:
    rule = contract.outcome
    said = [rule.outcome(word) for _, word in index.words.get(rule.topic, [])] if rule else []
    return next((outcome for outcome in reversed(said) if outcome), "")


def _instruction(index: BagIndex, contract: TopicContract) -> str:
    rule = contract.instruction
    said = [word for _, word in index.words.get(rule.topic, [])] if rule else []
    return (rule.text if rule else "") or (said[-1] if said else "")


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

    @property
    def is_ending(self) -> bool:
        """Whether the episode has ended, and only its last samples are waited for."""
        return self.bag is not None and self._end < float("inf")

    def receive(self, info: TopicInfo, message: RawMessage, now_s: float) -> None:
        """A message; `now_s` is monotonic."""
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
        """Throw the episode away. Returns its name. Raises DatasetError where there is none."""
        if self.bag is None:
            raise DatasetError("nothing is being recorded; start first")
        bag, self.bag, self._end = self.bag, None, float("inf")
        bag.discard()
        self.log(False, f"{bag.path.name}: discarded")
        return bag.path.name

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
        self.error, self._end, self._before = "", float("inf"), []
        try:
            self.bag = RecordedBag(self.folder / next_name(self.folder), self.contract, self.types)
            for info, message in sorted([*self._held.values(), *before], key=lambda own: own[1].receive_ns):
                self.bag.write(info, message)
        except QTransformerError as error:
            self._fail(error)
            raise
        self.log(False, f"{self.bag.path.name}: recording")

    def _write(self, info: TopicInfo, message: RawMessage) -> None:
        assert self.bag
        self.bag.write(info, message)
        if self._is_instruction(message.topic):
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
        write_json(self.folder / f"{own.name}.audit.json", own.to_dict())
        self.log(not own.is_ok, own.text())

    def _label(self, own: Audit, described: dict[str, str]) -> dict[str, str]:
        """The bag's `custom_data`."""
        label = {**described, "outcome": own.outcome, "audit": own.verdict()}
        for rule, word in ((self.contract.outcome, own.outcome), (self.contract.instruction, described["task"])):
            if rule and rule.custom_data:
                label[rule.custom_data] = word
        return label

    def _keep(self, info: TopicInfo, message: RawMessage) -> None:
        """What came between episodes: an instruction holds, samples count for a while, events not at all."""
        if self._is_instruction(message.topic):
            self._held[message.topic] = (info, message)
        elif self.settings.auto and message.topic not in self.contract.event_topics():
            oldest = message.receive_ns - round(self.settings.pre_roll_s * NANOSECONDS)
            self._before = [kept for kept in self._before if kept[1].receive_ns >= oldest]
            self._before.append((info, message))

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
