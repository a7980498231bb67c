# BusyBox, with Bash as its shell: the shell of Debian's BusyBox drops variables whose names it could not set, which
# upstream's does not.
. "$directory/../lib.sh"
packages=bash-static
names="$upstream/busybox:1.37.0-1"
config='{"Cmd":["sh"],"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}'

build() {
    # shellcheck disable=SC2086 # a list of names
    unpack "$work/unpacked" $packages
    mkdir -p "$1/bin"
    cp "$work/unpacked/bin/bash-static" "$1/bin/sh"
    small "$1"
}
