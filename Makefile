# Every target sets up what it needs; a newcomer types `make demo` or `make test`.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON := .venv/bin/python
# Apart from .venv: ROS 2's wheels re-execute every Python that starts in their environment.
ROS_EXTRAS := sim,rosbag,ros,dev
CORES := $(shell nproc 2>/dev/null || echo 2)

.PHONY: help setup demo ros-demo test test-all test-ros mutants fuzz peers interop check-gpu format check clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: .venv/.installed  ## create .venv and install the pinned packages

.venv/.installed: pyproject.toml constraints.txt .ci/setup-venv
	@.ci/setup-venv

demo: setup  ## collect, train, evaluate, report: runs/demo/report.html
	@.venv/bin/qtransformer demo

ros-demo: .venv-ros/.installed runs/demo/report.html  ## the demo's policy as a ROS 2 node on the simulated arm, 50 episodes
	@.venv-ros/bin/qtransformer ros-demo run=runs/demo episodes=50

runs/demo/report.html:
	@$(MAKE) --no-print-directory demo

.venv-ros/.installed: pyproject.toml constraints.txt ros_bridge/constraints-kilted.txt .ci/setup-venv
	@.ci/setup-venv .venv-ros $(ROS_EXTRAS) ros_bridge/constraints-kilted.txt

.venv-ros-jazzy/.installed: pyproject.toml constraints.txt ros_bridge/constraints-jazzy.txt .ci/setup-venv
	@.ci/setup-venv .venv-ros-jazzy $(ROS_EXTRAS) ros_bridge/constraints-jazzy.txt

test: setup  ## the default tests
	@$(PYTHON) -m pytest -n $(CORES) -m "not slow" --ignore tests/ros_nodes

test-all: setup  ## every test, the slow ones too
	@$(PYTHON) -m pytest -n $(CORES) --ignore tests/ros_nodes

test-ros: .venv-ros/.installed .venv-ros-jazzy/.installed  ## the nodes as real processes, on ROS 2 Kilted and on Jazzy
	@for venv in .venv-ros .venv-ros-jazzy; do $$venv/bin/python -m pytest tests/ros_nodes || exit 1; done

mutants: setup  ## plant known defects one at a time; a test must notice each
	@$(PYTHON) -m tests.mutants.run

fuzz: setup  ## 2,000 damaged datasets: every reader says so, in the project's own words
	@$(PYTHON) tests/fuzz/run.py

peers: setup  ## install what benchmarks/ compares with, in environments of their own
	@bash benchmarks/peers.sh
	@bash benchmarks/robomimic_env.sh

interop: setup  ## robomimic's own scripts on a file of ours and in our simulator (after `make peers`)
	@$(PYTHON) benchmarks/robomimic_interop.py

check-gpu: setup  ## train the demo preset on a GPU and compare its losses with the CPU's
	@$(PYTHON) benchmarks/check_gpu.py

format: setup  ## let ruff format and mend
	@$(PYTHON) -m ruff check --fix --quiet . ; $(PYTHON) -m ruff format .

check: setup  ## ruff and pyright
	@$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check . && $(PYTHON) -m pyright
	@if [ -d .venv-ros ]; then $(PYTHON) -m pyright --project ros_bridge; \
	else echo "ros_bridge was not type-checked: that needs ROS's types, which 'make .venv-ros/.installed' installs"; fi

clean:  ## delete caches and .venv; data/ and runs/ stay
	rm -rf .venv .venv-ros .venv-ros-jazzy .venv-peers .venv-robomimic build dist .pytest_cache .ruff_cache .hypothesis
	find qtransformer sim datasets ros_bridge tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
