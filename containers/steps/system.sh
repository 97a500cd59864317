#!/bin/sh
# Step 1: system packages. Arguments: packages of the definition.
set -eu
export DEBIAN_FRONTEND=noninteractive
# Debian's images delete downloaded packages at once; in a Docker build they stay in a cache mount.
rm -f /etc/apt/apt.conf.d/docker-clean
apt-get update -q
apt-get install -qy --no-install-recommends "$@"
# A named user without rights: programs that ask for their user's name must find one.
getent passwd 1000 >/dev/null || useradd --create-home --uid 1000 runner
