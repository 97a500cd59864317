#!/bin/sh
# Install what tests/cluster/minislurm.py needs, and the packages that are given as arguments
# (Debian or Ubuntu, as root). Running it again is cheap. The packages' own services are kept from
# starting: a policy-rc.d that says no stands in /usr/sbin during the installation, and a previous
# one comes back whatever happens.
set -eu

PACKAGES="slurm-wlm slurmdbd slurm-wlm-mysql-plugin munge mariadb-server iproute2 util-linux $*"
POLICY=/usr/sbin/policy-rc.d
SAVED=$POLICY.before-minislurm
MARK="# written by tests/cluster/install.sh"

say_and_stop() {
    echo "error: $1" >&2
    exit 2
}

[ "$(id -u)" = 0 ] || say_and_stop "installing packages needs root: sudo sh $0"
command -v apt-get >/dev/null ||
    say_and_stop "no apt-get here; install by hand what these hold: $PACKAGES"

missing=""
for package in $PACKAGES; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
        missing="$missing $package"
done

restore() {
    # Only our own file is removed: a run that was killed may have left it, or already undone it.
    if [ -f $POLICY ] && grep -qxF "$MARK" $POLICY; then rm -f $POLICY; fi
    if [ -e $SAVED ]; then mv -f $SAVED $POLICY; fi
}
restore # what a killed run left

if [ -z "$missing" ]; then
    echo "already installed: $PACKAGES"
    exit 0
fi

trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ -e $POLICY ]; then mv $POLICY $SAVED; fi
printf '#!/bin/sh\n%s\nexit 101\n' "$MARK" >$POLICY.new
chmod 755 $POLICY.new
mv $POLICY.new $POLICY

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086  # one word per package
apt-get install -y -qq --no-install-recommends $missing
echo "installed:$missing"
