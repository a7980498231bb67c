# Upstream's agnhost, and what its tests run beside it. The image that tests DNS with glibc is the same here.
. "$directory/../lib.sh"
packages='bind9-dnsutils bind9-host bind9-libs curl netcat-openbsd iproute2 iperf bash dash coreutils findutils grep sed tar
    util-linux libc-bin hostname iputils-ping procps busybox-static'
names="$upstream/agnhost:2.63.0 $upstream/agnhost:2.55 $upstream/glibc-dns-testing:2.0.0"
config='{"Entrypoint":["/agnhost"],"Cmd":["pause"],"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}'

build() {
    # shellcheck disable=SC2086 # a list of names
    unpack "$1" $packages
    base "$1"
    slim "$1"
    # Debian's alternatives are made at installation.
    ln -s nc.openbsd "$1/bin/nc"
    applets "$1"
    mkdir -p "$1/uploads" "$1/usr/local/bin"
    go_program k8s.io/kubernetes/test/images/agnhost "$1/agnhost"
    ln -s agnhost "$1/agnhost-2"
    account "$1" user-defined-in-image 1000 /home
    printf 'group-defined-in-image:x:50000:user-defined-in-image\n' >>"$1/etc/group"
    porter=$(cd "$modules" && go list -mod=readonly -f '{{.Dir}}' k8s.io/kubernetes/test/images/agnhost/porter)
    cp "$porter/localhost.crt" "$porter/localhost.key" "$1/"
    chmod 644 "$1/localhost.crt" "$1/localhost.key"
}
