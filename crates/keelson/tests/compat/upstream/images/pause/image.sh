. "$directory/../lib.sh"
names=registry.k8s.io/pause:3.10.2
config='{"Entrypoint":["/pause"],"User":"65535:65535"}'
sources="$sources $here/../crates/runtime-containerd/pause/pause.c"

build() {
    cc -Os -static -s -o "$1/pause" "$here/../crates/runtime-containerd/pause/pause.c" ||
        die "cc cannot link statically: apt-get install libc6-dev"
}
