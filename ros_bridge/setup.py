"""For `colcon build` in a ROS 2 workspace. The core comes from pip: `pip install .` in the checkout, into the same Python."""

from glob import glob

from setuptools import find_packages, setup

SHARE = "share/qtransformer_ros"

setup(
    name="qtransformer_ros",
    version="0.1.0",
    packages=find_packages(include=["qtransformer_ros*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/qtransformer_ros"]),
        (SHARE, ["package.xml"]),
        (f"{SHARE}/launch", glob("../launch/*.py") + glob("../launch/*.xml")),
        (f"{SHARE}/launch/params", glob("../launch/params/*.yaml")),
        (f"{SHARE}/contracts", glob("../datasets/contracts/*.yaml")),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    entry_points={
        "console_scripts": [
            "qtransformer-policy = qtransformer_ros.nodes.policy_node:main",
            "qtransformer-sim = qtransformer_ros.nodes.sim_node:main",
            "qtransformer-recorder = qtransformer_ros.nodes.recorder_node:main",
            "qtransformer-episodes = qtransformer_ros.nodes.episodes_node:main",
        ]
    },
)
