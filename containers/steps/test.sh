#!/bin/sh
# Last step: what is installed, and does it work? Arguments: those of selftest.py.
set -eu
pip=/opt/venv/bin/pip
"$pip" check
"$pip" freeze --all | sort -f >/opt/rdtl/installed.txt
cd /
PYTHONPATH=/opt/rdtl/build/code PYTHONDONTWRITEBYTECODE=1 /opt/venv/bin/python /opt/rdtl/selftest.py "$@"
# Functions that numba compiled while drawing are for this CPU only.
find /opt/venv -name '*.nb[ic]' -delete
