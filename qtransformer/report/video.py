"""Films of episodes: an actor's view, its choices and its values, as H.264 that every browser plays."""

import inspect
import json
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np

from qtransformer.files import explained_storage_errors, replaced_file, write_json
from qtransformer.policy import PolicyDecision
from qtransformer.report.frame import HEIGHT, LEFT_WIDTH, SCENE_HEIGHT, WIDTH, Frame, ValueScale, draw
from qtransformer.rollout import rollout
from qtransformer.types import Actor, Env, Episode

HOLD_SECONDS = 1.2
"""How long the outcome stays on screen."""
INDEX = "videos.json"
DISTRIBUTIONS = "value_distributions.npz"


def film(env: Env, policy: Actor, seeds: Sequence[int], directory: Path, label: str) -> list[dict[str, Any]]:
    """Film one episode per seed, at the environment's own pace.

    Writes `<label>_<seed>.mp4` and adds them to `videos.json`, which lists all films of the directory. The distributions of the
    first successful episode (else of the first) of a policy with a categorical value head go to `value_distributions.npz`:
    `probs` (t, v) of the whole action at each step, `locations` (v,), `values` (t,), `success`, `seed`, `label`.

    Args:
        env: Filmed with its `render()`, where it has one.
        policy: A `Policy`, or any actor; one without values is filmed without them.
        seeds: One episode each.
        directory: Where the films go.
        label: What the actor is called.

    Returns:
        An entry `{file, seed, success, steps, label}` per film.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    entries, told = [], False
    for seed in seeds:
        name = f"{re.sub(r'[^a-z0-9]+', '-', label.lower()).strip('-') or 'actor'}_{seed}.mp4"
        filmed = FilmedActor(env, policy, seed, label)
        with Video(directory / name, env.observation_spec.control_hz) as video:
            episode = filmed.shoot(video)
        entries.append({"file": name, "seed": int(seed), "success": episode.success, "steps": len(episode), "label": label})
        if filmed.decisions and filmed.scale.locations is not None and not told:
            told = episode.success
            if told or len(entries) == 1:
                _write_distributions(directory / DISTRIBUTIONS, filmed, episode)
    write_json(directory / INDEX, _others(directory, entries) + entries)
    return entries


def _others(directory: Path, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Films made before that are still there and not made anew."""
    try:
        listed = json.loads((directory / INDEX).read_text())
        new = {entry["file"] for entry in entries}
        return [e for e in listed if e["file"] not in new and (directory / Path(e["file"]).name).is_file()]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _write_distributions(path: Path, filmed: "FilmedActor", episode: Episode) -> None:
    with explained_storage_errors(path), replaced_file(path) as fresh, fresh.open("wb") as file:
        np.savez_compressed(
            file,
            probs=np.stack([d.value_probs[-1] for d in filmed.decisions]),
            locations=np.asarray(filmed.scale.locations),
            values=np.array([d.value for d in filmed.decisions]),
            success=episode.success,
            seed=filmed.seed,
            label=filmed.label,
        )


class FilmedActor:
    """Films one episode. It acts in the actor's place, so that `rollout` plays filmed and unfilmed episodes alike."""

    def __init__(self, env: Env, actor: Actor, seed: int, label: str) -> None:
        self.env, self.actor, self.seed, self.label = env, actor, int(seed), label
        self.scale = ValueScale.of(actor)
        self.decisions: list[PolicyDecision] = []
        """Those of actors with values."""
        self._decision: PolicyDecision | None = None

    @property
    def value(self) -> float | None:
        return getattr(self.actor, "value", None)

    def reset(self) -> None:
        self.actor.reset()

    def act(self, observation: Any) -> np.ndarray:
        decide = getattr(self.actor, "decide", None)
        if decide is None:
            return self.actor.act(observation)
        decision = decide(observation)
        if self.value is not None:
            self._decision = decision
            self.decisions.append(decision)
        return decision.action

    def shoot(self, video: "Video") -> Episode:
        """Play the episode, a frame per step and the outcome at the end."""
        steps = 0
        action = np.zeros(len(self.env.action_spec), np.float32)
        instruction = ""

        def on_step(observation: Any, chosen: np.ndarray) -> None:
            nonlocal steps, action, instruction
            steps, action, instruction = steps + 1, chosen, observation.get("instruction", "")
            video.add(self._draw(steps, action, observation["images"], instruction))

        episode = rollout(self.env, self, self.seed, on_step)
        last = {name: images[-1] for name, images in episode.images.items()}
        ending = "success" if episode.success else "failure" if episode.terminated[-1] else "failure: time limit"
        outcome = f"{ending} after {steps} step{'s' if steps != 1 else ''}"
        final = self._draw(steps, action, last, instruction, outcome, episode.success)
        for _ in range(max(1, round(HOLD_SECONDS * self.env.observation_spec.control_hz))):
            video.add(final)
        return episode

    def _draw(
        self, step: int, action: np.ndarray, images: Any, instruction: str, outcome: str = "", success: bool = False
    ) -> np.ndarray:
        frame = Frame(
            label=self.label,
            instruction=instruction,
            seed=self.seed,
            step=step,
            scene=spectate(self.env),
            images=images,
            action=action,
            decision=self._decision,
            values=[d.value for d in self.decisions],
            outcome=outcome,
            success=success,
        )
        return draw(frame, self.env.action_spec, self.scale)


def spectate(env: Env) -> np.ndarray | None:
    """The environment's own view, uint8 (h, w, 3), in the size of its place on screen where it can; None without one."""
    render = getattr(env, "render", None)
    if render is None:
        return None
    sized = "size" in inspect.signature(render).parameters
    picture = render(size=(SCENE_HEIGHT, LEFT_WIDTH)) if sized else render()
    return picture if isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.shape[2] == 3 else None


class Video:
    """An MP4 being written; it appears under its name when it is complete."""

    def __init__(self, path: Path, fps: float, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
        """`size` is width and height [pixel], both even: H.264 halves the resolution of colour."""
        self._path, self._temporary = path, path.with_name(f".{path.name}.partial")
        self._container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        self._stream.width, self._stream.height, self._stream.pix_fmt = *size, "yuv420p"
        self._stream.options = {"preset": "veryfast", "crf": "23", "tune": "animation"}
        self._stream.thread_count = 1

    def __enter__(self) -> "Video":
        return self

    def add(self, pixels: np.ndarray) -> None:
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        if kind is None:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)
