"""What went worse in this episode than its values had promised, and what that says of doing it again.

Values are learned from many episodes, and where a robot cannot see why it missed, they promise the same once more: it closes again
where it has just closed. So the policy takes its own temporal differences in: after every step it compares the value of the state
it came to with the value it had expected, credits the difference to what it did (eligibility traces, as in TD(lambda); Sutton and
Barto 2018, chapter 12), and for the rest of the episode expects less of what is like it: a like action in a like place.
"""

import numpy as np
from jaxtyping import Float

TRACE = 0.9
"""Lambda: how much of a difference is credited to each action before the last."""
REMEMBERED = 256
"""The newest actions of an episode, so that a decision takes no longer for an episode without an end."""


class Surprise:
    """The disappointments of one episode.

    Args:
        width: of the Gaussian kernel that says how alike two (proprioception, action) pairs are, in standard deviations of
            proprioception and half ranges of the action, root mean square.
        discount: per step.
        reward: the highest there is before an episode ends. What was earned on the way is not known while acting, so only what no
            reward explains is a disappointment; a cost per step is accounted for exactly.
    """

    def __init__(self, width: float, discount: float, reward: float = 0.0) -> None:
        self.width, self.discount, self.reward = width, discount, reward
        self.forget()

    def forget(self) -> None:
        """A new episode begins."""
        self._states = list[Float[np.ndarray, "p"]]()
        self._actions = list[Float[np.ndarray, "n"]]()
        self._credits = list[float]()
        self._expected: float | None = None

    def observe_value(self, value: float) -> None:
        """The best value of the state that the last action led to."""
        if self._expected is None:
            return
        difference = self.reward + self.discount * value - self._expected
        newest = len(self._credits) - 1
        self._credits = [c + (self.discount * TRACE) ** (newest - i) * difference for i, c in enumerate(self._credits)]

    def record_action(self, state: Float[np.ndarray, "p"], action: Float[np.ndarray, "n"], value: float) -> None:
        """The action that is taken now (scaled to [-1, 1]), where, and its value."""
        self._states = [*self._states, state][-REMEMBERED:]
        self._actions = [*self._actions, action][-REMEMBERED:]
        self._credits = [*self._credits, 0.0][-REMEMBERED:]
        self._expected = value

    def interrupt(self) -> None:
        """Somebody else acts from here on: what comes next tells nothing of the last action's state, however it went."""
        self._expected = None

    def undo_last(self) -> None:
        """The last action was not taken, so what comes next tells nothing of it, nor of those before."""
        if self._expected is not None:
            self._states.pop()
            self._actions.pop()
            self._credits.pop()
            self._expected = None

    def penalty(self, state: Float[np.ndarray, "p"], actions: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "k"]:
        """What to add to the values of actions here: at most 0, by the worst of what is like them."""
        if not self._credits:
            return np.zeros(len(actions))
        apart = ((np.array(self._states) - state) ** 2).mean(1) if state.size else np.zeros(len(self._states))
        differing = ((actions[:, None] - np.array(self._actions)) ** 2).mean(2)
        alike = np.exp(-(apart + differing) / (2 * self.width**2))
        return (alike * np.minimum(self._credits, 0.0)).min(1)
