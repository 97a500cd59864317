# Read by the steps that install packages: `locked --only|--without NAME…` installs that part of
# the lock. Every file must have a hash of the lock, wherever it comes from.
secrets=${RDTL_SECRETS:-/run/secrets}
wheels=${RDTL_WHEELS:-$build/wheels}
if [ -f "$secrets/pipconf" ]; then
    export PIP_CONFIG_FILE="$secrets/pipconf"
elif [ "${extra_index:-none}" != none ]; then
    export PIP_EXTRA_INDEX_URL="$extra_index"
fi
[ ! -f "$secrets/ca" ] || export PIP_CERT="$secrets/ca"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

locked() {
    part=$(mktemp)
    python3 "$build/part.py" /opt/rdtl/lock.txt "$@" >"$part"
    if [ -d "$wheels" ]; then
        set -- --no-index --find-links "$wheels"
    else
        set --
    fi
    /opt/venv/bin/pip install --require-hashes --no-deps --no-build-isolation \
        --progress-bar off "$@" -r "$part"
    rm -f "$part"
}
