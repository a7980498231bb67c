. "$directory/../lib.sh"
packages='etcd-server'
names=registry.k8s.io/etcd:3.6.8-0
config='{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}'

build() {
    # shellcheck disable=SC2086 # a list of names
    unpack "$1" $packages
    base "$1"
    mkdir -p "$1/usr/local/bin"
    ln -s /usr/bin/etcd "$1/usr/local/bin/etcd"
    slim "$1"
    applets "$1"
}
