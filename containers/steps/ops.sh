#!/bin/sh
# Step 3: DeepSpeed with operators compiled now. At run time the same would take minutes in every
# job and leave locks behind when it is killed. Arguments: operators, `--`, packages for compiling.
set -eu
build=/opt/rdtl/build
. "$build/pip.sh"
while [ "$#" -gt 0 ] && [ "$1" != -- ]; do
    export "DS_BUILD_$(echo "$1" | tr '[:lower:]' '[:upper:]')=1"
    shift
done
shift
if [ "$#" -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -qy --no-install-recommends "$@"
fi
# DeepSpeed asks for -march=native, and the image would then run on this kind of CPU only.
cat >/tmp/portable-g++ <<'WRAPPER'
#!/bin/sh
for word; do
    shift
    case $word in
        -march=native) set -- "$@" -march=x86-64-v3 ;;
        -D__AVX512__) set -- "$@" -D__AVX256__ ;;
        *) set -- "$@" "$word" ;;
    esac
done
exec g++ "$@"
WRAPPER
chmod +x /tmp/portable-g++
[ "$(uname -m)" != x86_64 ] || export CXX=/tmp/portable-g++
# Without pip's cache: a wheel in there may have been built without operators, or with others.
PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 locked --only deepspeed
rm -f /tmp/portable-g++
if [ "$#" -gt 0 ]; then
    apt-get purge -qy --auto-remove "$@"
fi
