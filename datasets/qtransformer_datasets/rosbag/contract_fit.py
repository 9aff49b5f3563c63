"""Opening a bag through a contract, and all that keeps the one from fitting the other, told at once."""

from collections.abc import Iterator
from pathlib import Path

from qtransformer.errors import DatasetError
from qtransformer.suggest import nearest, suggest
from qtransformer_datasets.episodes.check import ProblemsError
from qtransformer_datasets.rosbag.index import BagIndex, IndexBuilder, timed_messages
from qtransformer_datasets.rosbag.message_types import (
    CAMERA_TYPES,
    CONSUMED_TYPE,
    REWARD_TYPES,
    SERVICE_EVENT_SUFFIX,
    VECTOR_TYPES,
    WORD_TYPES,
)
from qtransformer_datasets.rosbag.shared_joints import Names, SharedJoints
from qtransformer_datasets.rosbag.storage import Bag, open_bag, salvaged
from qtransformer_datasets.rosbag.topic_contract import TopicContract

_REMEDY = "correct the contract, or leave this bag out (on_bad_episode=skip)"


def index_bag(path: Path, contract: TopicContract, partial: bool = False) -> BagIndex:
    """Open and scan a bag. Raises DatasetError for one that is broken, or is not what the contract says."""
    bag = open_bag(path, partial)
    try:
        return _index(bag, contract, partial)
    except DatasetError as error:
        if not partial or bag.is_salvage:
            raise
        return _index(salvaged(bag, str(error)), contract, partial)


def _index(bag: Bag, contract: TopicContract, partial: bool) -> BagIndex:
    """What fits is scanned though something else does not: to tell of everything takes no longer than to open a bag that fits."""
    builder, unfit = IndexBuilder(bag, contract), _topic_problems(bag, contract, partial)
    for message, time in timed_messages(bag, builder.wanted - unfit.keys(), contract.clock):
        builder.add(message, time)
    index = builder.build()
    problems = fit_problems(index, contract, partial)
    if problems:
        raise ProblemsError([f"{bag.path}: {problem}" for problem in problems], f"{bag.path}: {'; '.join(problems)}")
    return index


def fit_problems(index: BagIndex, contract: TopicContract, partial: bool = False) -> list[str]:
    """A sentence for everything about a bag that is not what the contract says. Of a broken bag what is announced may be lost."""
    unfit = _topic_problems(index.bag, contract, partial)
    counts = _counts(index, contract, unfit)
    silent = {topic for topic, count in counts.items() if not count}
    empty = [f"no message on {', '.join(sorted(silent))}; {_REMEDY}"] if silent else []
    lost = [] if partial else _lost(index.bag, counts)
    joints = _joint_problems(index, contract, without={*unfit, *silent})
    misfits = (f"{t}: none of its {counts[t]} messages can be read: {why}" for t, why in index.misfits if t not in unfit)
    return [*dict.fromkeys(unfit.values()), *empty, *lost, *joints, *dict.fromkeys(misfits)]


def _topic_problems(bag: Bag, contract: TopicContract, partial: bool) -> dict[str, str]:
    """What is wrong with each topic that is missing, or of a type that the contract does not expect."""
    announced = {*contract.event_topics(), *([contract.reward.topic] if contract.reward else [])}
    optional = announced if partial else set[str]()
    found = dict[str, str]()
    for topic, told, kinds in _expectations(contract):
        kind = bag.types.get(topic)
        if kind is not None and kind not in kinds and not (kinds == _WORDS and kind.endswith(SERVICE_EVENT_SUFFIX)):
            found.setdefault(topic, f"{topic} expected {told}, found {kind}; correct the contract")
    expected = dict.fromkeys(topic for topic, _, _ in _expectations(contract))
    return _missing_topics(bag, [topic for topic in expected if topic not in bag.types and topic not in optional]) | found


_WORDS = {kind.name for kind in WORD_TYPES.values()}


def _expectations(contract: TopicContract) -> Iterator[tuple[str, str, set[str]]]:
    """(topic, its type in words, names of the types it may have) of all that a contract speaks of."""
    for source in (*contract.observed, *contract.commanded):
        name = (CAMERA_TYPES | VECTOR_TYPES)[source.type].name
        yield source.topic, name, {name}
    if contract.reward:
        kinds = [kind.name for kind in REWARD_TYPES.values()]
        yield contract.reward.topic, " or ".join(kinds), set(kinds)
    if contract.ticks:
        yield contract.ticks.topic, CONSUMED_TYPE.name, {CONSUMED_TYPE.name}
    for topic in contract.event_topics():
        yield topic, f"words ({', '.join(sorted(_WORDS))})", _WORDS


def _missing_topics(bag: Bag, missing: list[str]) -> dict[str, str]:
    """Those that were likely mistyped each with what was meant; the others together, with all that there is."""
    near = {topic: name for topic in missing if (name := nearest(topic, bag.types))}
    far = [topic for topic in missing if topic not in near]
    there = f"there are: {', '.join(bag.types)}" if bag.types else "the bag has no topic at all"
    found = {topic: f"has no topic {topic}; did you mean {name}?: {_REMEDY}" for topic, name in near.items()}
    return found | dict.fromkeys(far, f"has no topic {', '.join(far)}; {there}: {_REMEDY}")


def _counts(index: BagIndex, contract: TopicContract, unfit: dict[str, str]) -> dict[str, int]:
    """Messages of each topic that must have some."""
    found = {topic: len(own) for topic, own in index.topics.items()}
    if contract.ticks:
        found[contract.ticks.topic] = len(index.decisions)
    return {topic: count for topic, count in found.items() if topic not in unfit}


def _lost(bag: Bag, counts: dict[str, int]) -> list[str]:
    fewer = [f"{topic} {count} of {bag.declared[topic]}" for topic, count in counts.items() if count < bag.declared.get(topic, 0)]
    return [f"messages are lost ({', '.join(fewer)}); copy it again, or use partial=True"] if fewer else []


def _joint_problems(index: BagIndex, contract: TopicContract, without: set[str]) -> list[str]:
    """Every joint of a shared topic has to be told, by one publisher."""
    problems = list[str]()
    for topic, joints in contract.shared_joints().items():
        if topic in without:
            continue
        shared, names = SharedJoints(topic, joints), index.names[topic]
        try:
            _take_all(shared, names)
        except DatasetError as error:
            problems.append(f"{topic}: {error}")
            continue
        if shared.untold:
            hint = suggest(shared.untold[0], sorted({name for own in names for name in own}))
            problems.append(
                f"{topic} expected the joints {', '.join(shared.untold)}, which none of its {len(index.topics[topic])} messages "
                f"names; {hint}: correct the contract, or record who tells them, too"
            )
    return problems


def _take_all(shared: SharedJoints, names: dict[Names, tuple[int, int]]) -> None:
    """As they came. One that has ended gives way to one that tells the same: its publisher came to name joints besides that nobody
    needs, or stopped doing so."""
    for own, (first, _) in names.items():
        for rival in shared.rivals(own):
            if names[rival][1] < first and shared.told(rival) == shared.told(own):
                shared.drop(rival)
        shared.take(own)
