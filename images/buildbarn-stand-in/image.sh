# A stand-in for Buildbarn's programs: one static program without anything of Buildbarn, which opens what its
# configuration names and answers health and metrics there. For tests of what the operator makes of a farm.
names=keelson.dev/buildbarn-stand-in:1
config='{"Entrypoint":["/app/stand-in"]}'

build() {
    command -v cc >/dev/null || die "cc is missing: apt-get install gcc libc6-dev"
    mkdir -p "$1/app"
    cc -std=gnu11 -Wall -Wextra -Werror -Os -static -s -o "$1/app/stand-in" "$here/buildbarn-stand-in/stand-in.c" ||
        die "cc cannot link statically: apt-get install libc6-dev"
}
