# What the images of upstream's conformance program share; sourced by each image.sh, beside images/lib.sh.
upstream=registry.k8s.io/e2e-test-images
modules=$directory/../..
sources="$directory/../lib.sh $modules/go.mod"

# go_program PACKAGE FILE: a program of upstream's modules, linked statically.
go_program() {
    (cd "$modules" && CGO_ENABLED=0 go build -mod=readonly -ldflags='-s -w' -o "$2" "$1") || die "cannot build $1"
}

# applets ROOT: BusyBox for every program that is not there.
applets() {
    [ -e "$1/bin/busybox" ] || cp /bin/busybox "$1/bin/busybox"
    for applet in $("$1/bin/busybox" --list); do
        for place in bin sbin usr/bin usr/sbin; do
            [ ! -e "$1/$place/$applet" ] && [ ! -L "$1/$place/$applet" ] || continue 2
        done
        ln -s /bin/busybox "$1/bin/$applet"
    done
}

# small ROOT: a file system of BusyBox alone.
small() {
    mkdir -p "$1/bin" "$1/usr/bin" "$1/usr/local/bin"
    applets "$1"
    base "$1"
}

# picture ROOT NAME: agnhost as a web server of one picture, what upstream's update demo changes between.
picture() {
    small "$1"
    go_program k8s.io/kubernetes/test/images/agnhost "$1/agnhost"
    printf 'NAME="Alpine Linux"\nID=alpine\nPRETTY_NAME="Alpine Linux"\n' >"$1/etc/os-release"
    printf '{\n  "image": "%s.jpg"\n}\n' "$2" >"$1/data.json"
    : >"$1/$2.jpg"
}
