# The pause image: one static program that holds a pod's namespaces.
names=keelson.dev/pause:1
config='{"Entrypoint":["/pause"],"User":"65535:65535"}'

build() {
    command -v cc >/dev/null || die "cc is missing: apt-get install gcc libc6-dev"
    cc -Os -static -s -o "$1/pause" "$here/pause/pause.c" || die "cc cannot link statically: apt-get install libc6-dev"
}
