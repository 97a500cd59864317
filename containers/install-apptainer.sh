#!/bin/sh
# Apptainer for one directory, without root: sh containers/install-apptainer.sh PREFIX
#
# Debian has Apptainer in its unstable suite only. Its package is unpacked into PREFIX together
# with the C library that it was linked against, and its two programs are pointed there. Neither
# the system's packages nor its package lists are touched. It runs in user namespaces; a cluster's
# own installation or module is the better choice where there is one.
#
# PREFIX/bin/apptainer is what to start. Running the script again is cheap, and safe after a kill.
# DEBIAN_MIRROR=URL takes the packages from there instead of the archive that this system uses.
set -eu
umask 022

PACKAGES="apptainer libc6 libseccomp2 libsqlite3-0 libgcc-s1"
TOOLS="patchelf libstdc++6" # needed once; they run with the unpacked C library
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

stop() { # stop STATUS WHAT FIX
    printf 'error RDTL-C029: %s\n  fix     %s\n' "$2" "$3" >&2
    exit "$1"
}

works() { "$PREFIX/bin/apptainer" --version 2>/dev/null; }

check_machine() {
    for program in apt-get dpkg-deb dpkg flock; do
        command -v "$program" >/dev/null || stop 2 "no $program: this is no Debian or Ubuntu" \
            "install the package apptainer (dnf install epel-release apptainer), or: module load apptainer"
    done
    [ -r $KEYRING ] || stop 2 "the keys of the Debian archive are missing ($KEYRING)" \
        "apt-get install debian-archive-keyring (as root), or ask for the package apptainer"
}

# The Debian archive that this system uses, whichever way its sources are written.
archive() {
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")
    # shellcheck disable=SC2016  # apt-get fills these in
    found=$(apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' 2>/dev/null |
        sed -n "s# $codename main\$##p" | grep '/debian/$' | head -n 1)
    echo "${DEBIAN_MIRROR:-${found:-http://deb.debian.org/debian}}"
}

# apt-get with lists, cache and sources of its own, but the system's proxy, keys and certificates.
prepare_apt() {
    mkdir -p "$WORK/lists/partial" "$WORK/cache/archives/partial" "$WORK/sources" "$WORK/debs"
    echo "deb [arch=$(dpkg --print-architecture) signed-by=$KEYRING] $(archive) sid main" \
        >"$WORK/sources/sid.list"
    cat >"$WORK/apt.conf" <<EOF
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$WORK/sources";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State::Lists "$WORK/lists";
Dir::Cache "$WORK/cache";
Acquire::Languages "none";
APT::Default-Release "";
APT::Sandbox::User "root";
// hooks of the system would work on the system's lists
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
EOF
}

own_apt() { apt-get -qq -c "$WORK/apt.conf" "$@"; }

# shellcheck disable=SC2086  # one word per package
fetch() (cd "$WORK/debs" && own_apt download $PACKAGES $TOOLS)

download() {
    if ! own_apt update || ! fetch; then
        stop 1 "the packages could not be fetched from $(archive)" \
            "see apt's message above; DEBIAN_MIRROR=URL names another archive"
    fi
}

unpack() {
    mkdir -p "$PART" "$WORK/tools"
    for package in $PACKAGES; do dpkg-deb -x "$WORK/debs/$package"_*.deb "$PART"; done
    for package in $TOOLS; do dpkg-deb -x "$WORK/debs/$package"_*.deb "$WORK/tools"; done
    # Its front end looks for its settings in usr/etc and usr/var, its starter below usr/lib.
    mv "$PART/etc" "$PART/var" "$PART/usr/"
    ln -s ../etc ../var "$PART/usr/lib/"
    mkdir "$PART/bin"
    printf '#!/bin/sh\nexec "%s/usr/bin/apptainer" "$@"\n' "$PREFIX" >"$PART/bin/apptainer"
    chmod 755 "$PART/bin/apptainer"
    chmod -R go+rX "$PART"
}

# Point the programs at the C library beside them, under the name that PREFIX will have.
relocate() {
    loader=$(find "$PART/usr/lib" -name 'ld-linux*.so.*' | head -n 1)
    libraries=$(dirname "$loader")
    triplet=$(basename "$libraries")
    final=$PREFIX/usr/lib/$triplet
    for program in usr/bin/apptainer "usr/lib/$triplet/apptainer/bin/starter"; do
        "$loader" --library-path "$libraries:$WORK/tools/usr/lib/$triplet" \
            "$WORK/tools/usr/bin/patchelf" --set-interpreter "$final/$(basename "$loader")" \
            --force-rpath --set-rpath "$final" "$PART/$program"
        "$loader" --library-path "$libraries" --list "$PART/$program" >/dev/null ||
            stop 1 "$program of this version needs more libraries" \
                "add the package of the library named above to PACKAGES in $0"
    done
}

note_what_is_missing() {
    missing=""
    for pair in squashfuse:squashfuse mksquashfs:squashfs-tools newuidmap:uidmap; do
        command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
    done
    [ -z "$missing" ] || echo "note: running or building images also needs the packages:$missing"
    directory=$PREFIX
    while [ "$directory" != / ]; do
        case $(stat -c %A "$directory") in
        *[xt]) ;;
        *) echo "note: other users cannot start it, because $directory is closed to them" ;;
        esac
        directory=$(dirname "$directory")
    done
}

[ $# = 1 ] || stop 2 "one argument is needed, the directory to install into" "sh $0 PREFIX"
mkdir -p "$(dirname "$1")"
PREFIX=$(cd "$(dirname "$1")" && pwd -P)/$(basename "$1")
PART=$PREFIX.part
WORK=$PREFIX.part/work

exec 9<"$(dirname "$PREFIX")" # locking the directory itself leaves no lock file behind
if works; then exit 0; fi
check_machine
flock 9
if works; then exit 0; fi # another installer was faster
if [ -e "$PREFIX" ] && [ ! -e "$PREFIX/usr/bin/apptainer" ]; then
    rmdir "$PREFIX" 2>/dev/null || stop 2 "$PREFIX exists and is something else" \
        "give a directory that does not exist"
fi
rm -rf "$PART"
prepare_apt
download
unpack
relocate
rm -rf "$WORK" "$PREFIX"
mv "$PART" "$PREFIX"
works || stop 1 "the installed program does not start" "$PREFIX/bin/apptainer --version says why"
note_what_is_missing
