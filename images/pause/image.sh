# The pause image: one static program that holds a pod's namespaces. Keelson makes the same one by itself
# (crates/runtime-containerd/src/pause.rs); this tar is for other runtimes.
names=keelson.dev/pause:1
config='{"Entrypoint":["/pause"],"User":"65535:65535"}'
sources=$here/../crates/runtime-containerd/pause/pause.c

build() {
    command -v cc >/dev/null || die "cc is missing: apt-get install gcc libc6-dev"
    cc -Os -static -s -o "$1/pause" "$sources" || die "cc cannot link statically: apt-get install libc6-dev"
}
