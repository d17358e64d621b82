#!/bin/sh
# Runs the fast tests and a run on two ranks with the Python of another Debian release, in a chroot of it.
#
#   make test-python [SUITE=trixie]      as root, with debootstrap; trixie has Python 3.13
#
# Both folders are root's, and below one where only root may write: a chroot that another user made would run his programs.
# FOLDER (8 GB) holds the release and its virtual environment, CACHE (3 GB) what pip has downloaded; both stay. Packages
# come from the Debian mirror of this machine's apt, and from the index of its pip.
set -eu

suite=${SUITE:-trixie}
folder=${FOLDER:-/var/cache/drumbeat/$suite}
cache=${CACHE:-/var/cache/drumbeat/pip}
root=$(cd "$(dirname "$0")/.." && pwd)

[ "$(id -u)" = 0 ] || { echo "error: chroot needs root: sudo make test-python"; exit 2; }
command -v debootstrap >/dev/null || { echo "error: debootstrap is missing: apt install debootstrap"; exit 2; }

if [ ! -e "$folder/made" ]; then
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' 'Created-By: Packages' | head -n 1)
    [ -n "$mirror" ] || { echo "error: apt knows no Debian mirror; run apt-get update first"; exit 2; }
    rm -rf "$folder"
    debootstrap --variant=minbase --include=ca-certificates,git,make,python3,python3-venv \
        "$suite" "$folder" "$mirror"
    touch "$folder/made"
fi

mkdir -p "$cache" "$folder/cache" "$folder/drumbeat" "$folder/etc/xdg"
cp -L /etc/resolv.conf /etc/hosts "$folder/etc/"
for settings in /etc/pip.conf /etc/xdg/pip; do
    [ ! -e "$settings" ] || cp -R "$settings" "$folder$(dirname "$settings")/"
done
find "$folder/drumbeat" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +
git -C "$root" ls-files -z --cached --others --exclude-standard | tar -C "$root" --null -T - -cf - |
    tar -C "$folder/drumbeat" -xf -

# In a mount namespace of its own: the mounts go when the tests end, however they end.
exec unshare --mount sh -eu -c '
    mount --rbind /dev "$1/dev"
    mount -t proc proc "$1/proc"
    mount --bind /etc/ssl/certs "$1/etc/ssl/certs"
    mount --bind "$2" "$1/cache"
    exec env PIP_CACHE_DIR=/cache HOME=/root PYTHONPATH= chroot "$1" sh -eu -c "
        cd /drumbeat
        python3 --version
        make install
        make test-fast
        .venv/bin/python -m pytest tests/test_python.py"
    ' sh "$folder" "$cache"
