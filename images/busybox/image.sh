# BusyBox as Debian has it, statically linked, with its applets where Docker's image has them.
packages=busybox-static
names='docker.io/library/busybox:1.35 docker.io/library/busybox:latest'
config='{"Cmd":["sh"],"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}'

build() {
    # shellcheck disable=SC2086 # a list of names
    unpack "$work/unpacked" $packages
    case $available in
    *:1.35.*) ;;
    *) die "this machine's package sources have another version: $available; change names in images/busybox" ;;
    esac
    mkdir -p "$1/bin"
    cp "$work/unpacked/bin/busybox" "$1/bin/busybox"
    for applet in $("$1/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"
    done
    mkdir -p "$1/usr/bin" "$1/var/www"
    ln -s ../../bin/env "$1/usr/bin/env"
    base "$1"
}
