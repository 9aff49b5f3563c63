"""How much of the simulator's time is unavoidable: environment steps against bare rendering and physics of the same scenes.

    python benchmarks/bench_sim.py [episodes=40] [size=64]

The scripted expert plays; its own thinking is left out of the clock. Each scene is rendered once more with nothing around it,
and the episodes are repeated to time their physics sub-steps alone. "share" is bare time over the time of an environment step.
"""

import sys
import time

import numpy as np

import command_line
from qtransformer_sim import CAMERAS, ScriptedExpert, make_env
from qtransformer_sim.camera import render


def main(episodes: int = 40, size: int = 64) -> None:
    env = make_env(cameras={"wrist": (size, size)})
    expert = ScriptedExpert(env)
    for seed in range(200):  # reads most of the meshes once, which a long collection does only at its beginning
        env.reset(seed=seed)
    clock = {"reset": 0.0, "step": 0.0, "render": 0.0, "physics": 0.0}
    steps = 0
    for seed in range(episodes):
        started = time.perf_counter()
        observation, _ = env.reset(seed=seed)
        clock["reset"] += time.perf_counter() - started
        expert.reset()
        done = False
        while not done:
            action = expert.act(observation)
            started = time.perf_counter()
            observation, _, terminated, truncated, _ = env.step(action)
            clock["step"] += time.perf_counter() - started
            done = terminated or truncated
            steps += 1
            clock["render"] += bare_render(env, size)
    replay_physics(env, episodes, clock)
    report(clock, steps, episodes)
    env.close()


def bare_render(env, size: int) -> float:
    """Seconds for one render of the scene as it is."""
    frame = env.arm.gripper_to_base()
    started = time.perf_counter()
    render(env.bullet, CAMERAS["wrist"], (size, size), frame)
    return time.perf_counter() - started


def replay_physics(env, episodes: int, clock: dict[str, float]) -> None:
    """Play the same episodes again (they repeat bit for bit), timing each physics sub-step of the steps and nothing else."""
    expert = ScriptedExpert(env)
    original = env.bullet.stepSimulation

    def timed() -> None:
        started = time.perf_counter()
        original()
        clock["physics"] += time.perf_counter() - started

    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        expert.reset()
        env.bullet.stepSimulation = timed
        done = False
        while not done:
            observation, _, terminated, truncated, _ = env.step(expert.act(observation))
            done = terminated or truncated
        env.bullet.stepSimulation = original


def report(clock: dict[str, float], steps: int, episodes: int) -> None:
    bare = clock["render"] + clock["physics"]
    rows = (
        ("environment, resets included", steps, clock["step"] + clock["reset"]),
        ("environment, steps alone", steps, clock["step"]),
        ("resets", episodes, clock["reset"]),
        ("bare rendering", steps, clock["render"]),
        ("bare physics, same sub-steps", steps, clock["physics"]),
        ("bare rendering and physics", steps, bare),
    )
    print(f"{'':30s} {'per s':>8s} {'ms each':>8s} {'share':>6s}")
    for name, count, seconds in rows:
        share = f"{seconds / clock['step']:6.2f}" if name.startswith("bare") else ""
        print(f"{name:30s} {count / seconds:8.1f} {1e3 * seconds / count:8.2f} {share}")
    print(f"mean episode length: {np.round(steps / episodes, 1)} steps")


if __name__ == "__main__":
    sys.exit(command_line.run(main))
