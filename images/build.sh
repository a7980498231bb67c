#!/bin/sh
# Builds the test images from Debian packages: no registry, no Docker. What is unchanged is kept.
#
#   images/build.sh [--output DIR] [IMAGE...]
#
# IMAGE is a directory beside this file: pause, busybox, postgres, redis or buildbarn-stand-in; all by default. The path of
# any other directory that has an image.sh will do, too. Each becomes DIR/IMAGE.tar, an OCI layout that `keelson image load`
# and `docker load` read. DIR is $KEELSON_IMAGE_DIR, else target/images. Their names carry the version that Debian has:
# docker.io/library/postgres:15, redis:7, busybox:1.35; what is our own is keelson.dev/pause:1 and
# keelson.dev/buildbarn-stand-in:1.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
output=${KEELSON_IMAGE_DIR:-$here/../target/images}
if [ "${1:-}" = --output ]; then
    output=${2:?--output needs a directory}
    shift 2
fi
. "$here/lib.sh"
all=$(cd "$here" && ls -d */ | tr -d /)
# shellcheck disable=SC2086 # a list of names
[ $# -gt 0 ] || set -- $all
# directory_of IMAGE: where its image.sh is.
directory_of() {
    case $1 in
    */*) echo "$1" ;;
    *) echo "$here/$1" ;;
    esac
}

for image in "$@"; do
    [ -r "$(directory_of "$image")/image.sh" ] || die "no image is called $image; there are" $all
done
[ "$(id -u)" = 0 ] || die "run this as root: files in images belong to several users"
for tool in apt-get apt-cache dpkg-deb tar sha256sum; do
    command -v "$tool" >/dev/null || die "$tool is missing: images are built from Debian packages, on Debian or Ubuntu"
done

mkdir -p "$output/packages"
output=$(cd "$output" && pwd)
cache=$output/packages
architecture=$(dpkg --print-architecture)
scripts=$(cat "$here/lib.sh" "$here/build.sh" | sha256sum | cut -d ' ' -f 1)

# One builder at a time: tests of several crates may ask for images at once.
exec 9>"$output/.lock"
flock 9

for image in "$@"; do
    # a subshell, and no `|| exit` after it: that would turn off `set -e` inside
    (
        packages= sources= names=
        directory=$(cd "$(directory_of "$image")" && pwd)
        image=$(basename "$directory")
        work=$output/.work-$image
        # defines `packages` (roots of the closure), `names` and the function `build`; may add files to `sources`
        . "$directory/image.sh"
        inputs=$(find "$directory" $sources -type f | LC_ALL=C sort | xargs cat | sha256sum | cut -d ' ' -f 1)
        # shellcheck disable=SC2086 # a list of names
        if [ -n "$packages" ]; then
            if ! has_lists; then
                if [ -e "$output/$image.tar" ] && [ "$(head -n 1 "$output/$image.stamp")" = "$scripts $inputs" ]; then
                    exit 0
                fi
                say "apt-get update, since apt has no package lists yet"
                apt-get -qq update
            fi
            packages=$(closure $packages)
            available=$(versions $packages)
            ! printf '%s' "$available" | grep '(none)' >&2 || die "this machine's package sources lack the above"
        else
            available=
        fi
        stamp=$(printf '%s %s\n%s' "$scripts" "$inputs" "$available")
        if [ -e "$output/$image.tar" ] && [ "$(cat "$output/$image.stamp" 2>/dev/null)" = "$stamp" ]; then
            exit 0
        fi
        say "building $image"
        rm -rf "$work" "$output/$image.stamp"
        mkdir -p "$work/root"
        build "$work/root"
        # shellcheck disable=SC2086
        pack "$work/root" "$config" "$output/$image.tar" $names
        printf '%s' "$stamp" >"$output/$image.stamp"
        rm -rf "$work"
        say "$output/$image.tar is $names"
    )
done
