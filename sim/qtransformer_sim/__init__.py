"""A PyBullet simulator: arms that grasp random objects in front of cameras, an expert, and recipes for data.

from qtransformer_sim import make_env, ScriptedExpert
env = make_env(task="grasp", split="train")
observation, info = env.reset(seed=3)
"""

from qtransformer_sim.arm import ARMS, ArmModel, Finger
from qtransformer_sim.camera import CAMERAS, Camera
from qtransformer_sim.controller import CartesianController, GripperPose, JointCommand, Workspace
from qtransformer_sim.env import GraspEnv, RobotEnv, make_env
from qtransformer_sim.expert import RandomActor, ScriptedExpert
from qtransformer_sim.recipes import RECIPES, NoisyExpert, Recipe
from qtransformer_sim.tasks import TASKS, GraspTask, Task, TaskOutcome

__all__ = [
    "ARMS",
    "CAMERAS",
    "RECIPES",
    "TASKS",
    "ArmModel",
    "Camera",
    "CartesianController",
    "Finger",
    "GraspEnv",
    "GraspTask",
    "GripperPose",
    "JointCommand",
    "NoisyExpert",
    "RandomActor",
    "Recipe",
    "RobotEnv",
    "ScriptedExpert",
    "Task",
    "TaskOutcome",
    "Workspace",
    "make_env",
]
