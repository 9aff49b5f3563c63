"""Topics of joints that several drivers share: an arm's and a gripper's, say, each message naming its own joints.

The messages of a topic that name the same joints, in any order, are one *part* of it, with samples and an age of its own: what is
made of several parts is as old as the oldest. A bag's topics are divided by the same rule as those of a live robot. Nothing here
needs ROS or a bag library.
"""

from collections.abc import Collection, Iterator, Sequence

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag.contract_entries import VectorTopic
from qtransformer_datasets.rosbag.message_types import SHARED_TYPES

Names = frozenset[str]
"""All joints that a message names: what its publisher is known by."""


class SharedJoints:
    """The parts of one topic, as they turn up.

    Args:
        topic: its name.
        joints: those that are needed of it, in the contract's order.
        measured: those that are needed besides, of a live robot; no contract speaks of them.
    """

    def __init__(self, topic: str, joints: Sequence[str], measured: Sequence[str] = ()) -> None:
        self.topic, self._joints = topic, tuple(joints)
        self._needed = tuple(dict.fromkeys((*joints, *measured)))
        self._heard: dict[Names, str] = {}

    def take(self, names: Names) -> str:
        """The part that a message of these names belongs to; "" if it tells nothing that is needed.

        Raises:
            DatasetError: a joint is told by another part, too.
        """
        if names not in self._heard:
            for rival in self.rivals(names):
                self._refuse(names, rival)
            if label := self.label(names):
                self._heard[names] = label
        return self._heard.get(names, "")

    def rivals(self, names: Names) -> Iterator[Names]:
        """Those heard before that tell a joint that these tell, and others besides or not all."""
        told = set(self.told(names))
        return (other for other in list(self._heard) if other != names and told & other)

    def drop(self, names: Names) -> None:
        """Forget that a publisher was there."""
        del self._heard[names]

    def told(self, names: Collection[str]) -> tuple[str, ...]:
        """Those of the needed joints that a message of these names tells, in the contract's order."""
        return tuple(joint for joint in self._needed if joint in names)

    @property
    def untold(self) -> tuple[str, ...]:
        """Needed joints that nobody told so far."""
        return tuple(joint for joint in self._needed if not any(joint in names for names in self._heard))

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts that are needed, those not heard yet as one."""
        return (*self._heard.values(), *([self.label(frozenset(self.untold))] if self.untold else []))

    def label(self, names: Names) -> str:
        """What a part is called: as its topic, if it tells all that the contract needs, and else by the joints that it tells, as
        `/joint_states (joint1 and 6 more)`. "" if it tells nothing that is needed.

        It depends on nothing but the names and the contract: a policy's report of its samples calls them as a bag does.
        """
        told = [joint for joint in self._joints if joint in names]
        if told and len(told) == len(self._joints):
            return self.topic
        told = told or list(self.told(names))
        more = f" and {len(told) - 1} more" if len(told) > 1 else ""
        return f"{self.topic} ({told[0]}{more})" if told else ""

    def _refuse(self, names: Names, rival: Names) -> None:
        both = ", ".join(joint for joint in self.told(names) if joint in rival)
        raise DatasetError(
            f"joints {both} expected one publisher, found two, of messages that name {listed(rival)}, and {listed(names)}; "
            "stop one of them, or remap it to a topic of its own, and record again, or reset"
        )


def topic_of(part: str) -> str:
    """The topic that a part belongs to: names of topics have no spaces."""
    return part.partition(" ")[0]


def told_by(source: VectorTopic, names: Collection[str]) -> tuple[VectorTopic, list[int]]:
    """What an entry of the contract reads of a message of these names, and which of its dimensions that is; of a type that is not
    shared, all. At least one of its joints must be named."""
    if source.type not in SHARED_TYPES:
        return source, list(range(len(source)))
    columns = [column for column, joint in enumerate(source.joints) if joint in names]
    joints = tuple(source.joints[column] for column in columns)
    return VectorTopic(topic=source.topic, type=source.type, joints=joints, field=source.field, units=("1",)), columns


def listed(names: Collection[str]) -> str:
    """All of them, sorted; or none, in words."""
    return ", ".join(sorted(names)) or "no joint"
