"""What a bag's episodes are before their payload is read: which messages, which instruction, how each ended and who says so."""

from dataclasses import dataclass

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag.contract_entries import TextRule
from qtransformer_datasets.rosbag.index import BagIndex
from qtransformer_datasets.rosbag.pieces import Piece, pieces, windows
from qtransformer_datasets.rosbag.report import BagReport, report_bag
from qtransformer_datasets.rosbag.tick_sync import Gap, Window
from qtransformer_datasets.rosbag.topic_contract import TopicContract


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is known of an episode before its payload is read."""

    index: BagIndex
    piece: Piece
    outcome: str
    """One of `OUTCOMES`; "split" for a piece that a gap ended, "cut" where a broken bag ends: both are truncated."""
    says_outcome: bool
    """Whether the bag itself says the outcome."""
    instruction: str
    where: str


class Planner:
    """Plans of one bag after the other.

    `splits`: make episodes of what lies between gaps, rather than refuse the bag. `otherwise`: the outcome of episodes that do not
    say theirs; None refuses them.
    """

    def __init__(self, contract: TopicContract, splits: bool, otherwise: str | None) -> None:
        self._contract, self._splits, self._otherwise = contract, splits, otherwise

    def plan(self, index: BagIndex, first: int) -> tuple[list[Plan], BagReport]:
        """The episodes of a bag, numbered from `first` on, and what there is to tell of it."""
        path, found, gaps, problems = index.bag.path, list[Plan](), list[Gap](), list(index.bag.damage)
        marked = windows(index, self._contract.episodes)
        for window in marked:
            own, holes = pieces(index, window, self._contract)
            if holes and not self._splits:
                gaps_text = report_bag(index, holes).gaps_text()
                raise DatasetError(f"{path}: {gaps_text}; raise tolerance_s in the contract, or use on_gap='split'")
            if not own:
                ranges = report_bag(index).ranges_text()
                problems.append(f"{path}: at no tick every topic has a sample within its tolerance: {ranges}")
            gaps += holes
            found += [self._plan(index, piece, first + len(found) + i) for i, piece in enumerate(own)]
        if not marked:
            problems.append(f"{path}: no episode starts; check the contract's `episodes`")
        return found, report_bag(index, gaps, len(found), tuple(problems))

    def _plan(self, index: BagIndex, piece: Piece, number: int) -> Plan:
        where = f"{index.bag.path}, episode {number}"
        said = self._said(index, piece.window) if piece.is_end else []
        outcome = next(filter(None, map(self._outcome, reversed(said))), "")
        instruction = _instruction(index, piece.window, self._contract.instruction, where)
        return Plan(index, piece, outcome or self._unsaid(index, piece, said, where), bool(outcome), instruction, where)

    def _said(self, index: BagIndex, window: Window) -> list[str]:
        """The words that may tell the outcome, in the order in which they came."""
        rule = self._contract.outcome
        if rule is None:
            return []
        if rule.topic:
            return [word for time, word in index.words[rule.topic] if window.start <= time < window.until]
        return [index.bag.custom_data[rule.custom_data]] if rule.custom_data in index.bag.custom_data else []

    def _outcome(self, word: str) -> str:
        return self._contract.outcome.outcome(word) if self._contract.outcome else ""

    def _unsaid(self, index: BagIndex, piece: Piece, said: list[str], where: str) -> str:
        """The outcome of a piece that does not say it."""
        if not piece.is_end:
            return "split"
        if index.bag.is_salvage:
            return "cut"
        if self._otherwise is not None:
            return self._otherwise
        raise DatasetError(
            f"{where}: does not say how it ended (words {sorted(set(said))}); give the contract an `outcome`, "
            "or say it for all such episodes: outcome='success', 'failure' or 'timeout'"
        )


def _instruction(index: BagIndex, window: Window, rule: TextRule | None, where: str) -> str:
    """Of a topic the last text up to the window's end: it may have been given before the episode began."""
    if rule is None:
        return ""
    said = [word for time, word in index.words.get(rule.topic, []) if time <= window.stop]
    text = rule.text or index.bag.custom_data.get(rule.custom_data, "") or (said[-1] if said else "")
    if not text:
        source = rule.topic or f"custom_data '{rule.custom_data}'"
        raise DatasetError(f"{where}: {source} gives no instruction; set `instruction: {{text: ...}}` in the contract")
    return text
