#!/usr/bin/env bash
# Creates .venv with the pinned packages. Called by `make`; harmless to repeat.
set -euo pipefail
cd "$(dirname "$0")"

# PyBullet has wheels for 3.10 and 3.11; with 3.12 there is no simulator. A candidate must really run: shims may not.
find_python() {
  local version path
  for version in 3.11 3.10 3.12; do
    while read -r path; do
      if [ "$("$path" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$version" ]; then
        echo "$path"
        return
      fi
    done < <(type -aP "python$version" python3 2>/dev/null)
  done
  return 1
}

if ! .venv/bin/python -c '' 2>/dev/null; then
  python=$(find_python) || {
    echo "setup: no Python 3.10, 3.11 or 3.12 was found; on Debian or Ubuntu: sudo apt install python3 python3-venv" >&2
    exit 1
  }
  rm -rf .venv
  "$python" -m venv .venv || {
    rm -rf .venv
    echo "setup: $python cannot make an environment; on Debian or Ubuntu: sudo apt install python3-venv" >&2
    exit 1
  }
fi

extras="sim,dev"
if [ "$(.venv/bin/python -c 'import sys; print(sys.version_info >= (3, 12))')" = True ]; then
  echo "setup: PyBullet has no wheels for this Python; installing without the simulator" >&2
  extras="dev"
fi
.venv/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[$extras]"
touch .venv/.installed
