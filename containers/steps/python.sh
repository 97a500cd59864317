#!/bin/sh
# Step 2: the virtual environment, exactly as locked. Arguments: a further public index or `none`,
# then what later steps install.
# Index settings and CA bundle are read where the builder mounts them; nothing of them stays.
set -eu
build=/opt/rdtl/build
extra_index=$1
shift
. "$build/pip.sh"
python3 -m venv /opt/venv
# The locked pip and setuptools build the packages that come as source, so nothing unlocked
# takes part: --no-build-isolation below forbids pip to fetch its own.
locked --only pip setuptools wheel
locked --without pip setuptools wheel "$@"
