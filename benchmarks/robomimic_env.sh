#!/usr/bin/env bash
# robomimic 0.3.0 in an environment of its own, so that its own code can read our files and act in our simulator.
#
# As in peers.sh, PyTorch, NumPy and h5py are those of .venv, seen through a .pth file, and no CUDA build is pulled in. It is not
# .venv-peers because of one stub: robomimic imports torchvision (built for one exact PyTorch) as soon as it is loaded, but calls it
# only for ResNet, R3M and MVP encoders and for colour jitter. Names without a body stand in for it here, and transformers,
# which lives in .venv-peers, would take them for the real thing. Left out: egl_probe, mujoco, robosuite (their simulators only).
set -euo pipefail
cd "$(dirname "$0")/.."

[ -x .venv/bin/python ] || { echo "peers: .venv is missing; make it first with 'make setup'" >&2; exit 1; }
purelib() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

[ -x .venv-robomimic/bin/python ] || .venv/bin/python -m venv .venv-robomimic
site=$(purelib .venv-robomimic/bin/python)
purelib .venv/bin/python > "$site/shared_torch.pth"

mkdir -p "$site/torchvision/transforms"
echo '"""Names without a body: see benchmarks/robomimic_env.sh."""' > "$site/torchvision/__init__.py"
touch "$site/torchvision/models.py" "$site/torchvision/transforms/functional.py"
echo 'Compose = Lambda = None' > "$site/torchvision/transforms/__init__.py"

.venv-robomimic/bin/python -m pip --disable-pip-version-check install --quiet --no-deps \
  robomimic==0.3.0 imageio==2.38.1 imageio-ffmpeg==0.8.1 psutil==7.2.2 six==1.17.0 tensorboardX==2.6.5 termcolor==3.3.0
.venv-robomimic/bin/python -c 'import robomimic.scripts.train, torch; print("ready: robomimic", robomimic.__version__, "on torch", torch.__version__)'
