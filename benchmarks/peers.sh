#!/usr/bin/env bash
# The public q-transformer 0.5.0 in an environment of its own, to be timed beside ours: `make peers`.
#
# PyTorch and NumPy are those of .venv, seen through a .pth file: one build for both sides, and no CUDA build is pulled in.
# One stub: the package's text conditioner imports open_clip (which wants torchvision, built for one exact PyTorch) as soon as it
# is loaded. The benchmark conditions on no text and never calls it, so an empty module stands in for it.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -x .venv/bin/python ] || { echo "peers: .venv is missing; make it first with 'make setup'" >&2; exit 1; }
purelib() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

[ -x .venv-peers/bin/python ] || .venv/bin/python -m venv .venv-peers
site=$(purelib .venv-peers/bin/python)
purelib .venv/bin/python > "$site/shared_torch.pth"
[ -d "$site/open_clip" ] || { mkdir "$site/open_clip"; echo '"""Empty: see benchmarks/peers.sh."""' > "$site/open_clip/__init__.py"; }

torch=$(.venv/bin/python -c 'import torch; print(torch.__version__)')
pip() { .venv-peers/bin/python -m pip --disable-pip-version-check install --quiet "$@"; }
pip --constraint <(echo "torch==$torch") \
  accelerate==1.15.0 adam-atan2-pytorch==0.4.1 einops==0.8.2 einx==0.4.3 ema-pytorch==0.8.3 environs==15.2.0 ftfy==6.3.1 \
  hl-gauss-pytorch==0.3.0 hyper-connections==0.4.11 loguru==0.7.3 regex sentencepiece torch-einops-utils==0.2.0 \
  transformers==5.23.0 x-transformers==2.31.10 beartype jaxtyping
pip --no-deps q-transformer==0.5.0 classifier-free-guidance-pytorch==0.7.1
.venv-peers/bin/python -c 'import q_transformer, torch; print("peers ready: q-transformer 0.5.0 on torch", torch.__version__)'
