# Functions that build an OCI image tar from Debian packages, without a registry and without Docker.
# Sourced by build.sh. Needs apt-get, dpkg-deb, tar, sha256sum; writes only below $work and $output.

say() { printf '%s\n' "images: $*" >&2; }

die() {
    say "$*"
    exit 1
}

# apt_cache ARGUMENT...: apt-cache with an index of its own, since Docker's Debian images switch apt's off
# and every call would read all package lists again.
apt_cache() {
    apt-cache -o Dir::Cache::pkgcache="$cache/pkgcache.bin" -o Dir::Cache::srcpkgcache="$cache/srcpkgcache.bin" "$@"
}

# has_lists: whether apt has been told what there is to download.
has_lists() {
    apt-get indextargets --format '$(FILENAME)' 'Created-By: Packages' | while read -r list; do
        [ ! -e "$list" ] || echo "$list"
    done | grep -q .
}

# closure ROOT...: the packages and the libraries they depend on, one per line. Only libraries are
# followed: what else Debian's packages depend on (init scripts, perl, debconf) serves installation,
# and nothing is installed here. Programs that are wanted are named as roots. LLVM is left out: it is
# larger than all the rest, and PostgreSQL runs without its JIT when llvmjit.so is not there.
closure() {
    seen=
    todo=$*
    while [ -n "$todo" ]; do
        # shellcheck disable=SC2086 # a list of names
        seen=$(printf '%s\n' $seen $todo | sort -u)
        # shellcheck disable=SC2086
        next=$(apt_cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
            --no-enhances $todo | sed -n 's/^ [ |]*\(Pre\)\{0,1\}Depends: \(lib[^ ]*\|zlib1g\)$/\2/p' |
            grep -v -e '^libllvm' -e '^libpam-runtime' -e '^libperl' -e '^libelogind' | sort -u)
        # shellcheck disable=SC2086
        todo=$(printf '%s\n' $next | grep -vxF "$seen" || true)
    done
    printf '%s\n' "$seen"
}

# versions PACKAGE...: `name=version` of what apt would fetch, one per line.
versions() {
    apt_cache policy "$@" | sed -n -e 's/^\([^ ].*\):$/\1/p' -e 's/^  Candidate: /=/p' | paste -d '' - -
}

# download PACKAGE...: into the cache; what is there already is not fetched again.
download() {
    (cd "$cache" && apt-get -qq -o APT::Sandbox::User=root download "$@")
}

# unpack DIRECTORY PACKAGE...: fetches packages (kept in $cache) and unpacks them into a root directory
# in which /bin, /sbin and /lib are links into /usr, as on any Debian.
unpack() {
    root=$1
    shift
    for directory in bin sbin lib lib64; do
        mkdir -p "$root/usr/$directory"
        ln -s "usr/$directory" "$root/$directory"
    done
    if ! download "$@"; then
        say "apt-get update, since its package lists may be old"
        apt-get -qq update
        download "$@" || die "apt-get could not download: $*"
    fi
    for package in $(versions "$@"); do
        # apt writes the colon of an epoch as %3a
        file=$(printf '%s' "$package" | sed -e 's/:/%3a/g' -e 's/=/_/')
        dpkg-deb -x "$cache/$file"_*.deb "$root" || die "cannot unpack $package"
    done
}

# base ROOT: what every root file system has besides packages.
base() {
    mkdir -p "$1/etc" "$1/tmp" "$1/root" "$1/run" "$1/proc" "$1/sys" "$1/dev" "$1/home" "$1/var/tmp"
    [ -e "$1/var/run" ] || ln -s /run "$1/var/run"
    chmod 1777 "$1/tmp" "$1/var/tmp"
    chmod 700 "$1/root"
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n' >"$1/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$1/etc/group"
    printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$1/etc/nsswitch.conf"
}

# account ROOT NAME ID HOME: a user and its group.
account() {
    printf '%s:x:%s:%s::%s:/bin/bash\n' "$2" "$3" "$3" "$4" >>"$1/etc/passwd"
    printf '%s:x:%s:\n' "$2" "$3" >>"$1/etc/group"
}

# slim ROOT: removes what no program reads, and checks that every program finds its libraries.
slim() {
    rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/info "$1"/usr/share/lintian \
        "$1"/usr/share/locale "$1"/usr/share/i18n "$1"/usr/share/bash-completion "$1"/usr/share/bug \
        "$1"/usr/share/doc-base "$1"/usr/share/debconf "$1"/usr/lib/systemd "$1"/etc/init.d \
        "$1"/var/lib/dpkg "$1"/var/cache "$1"/usr/share/gcc* "$1"/usr/share/gdb
    loader=
    for candidate in /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1; do
        [ ! -e "$1$candidate" ] || loader=$candidate
    done
    [ -n "$loader" ] || die "no dynamic loader is known for $architecture; name it in images/lib.sh"
    broken=$(find "$1/usr/bin" "$1/usr/sbin" "$1/usr/lib/postgresql" -type f -perm -u+x 2>/dev/null |
        sed "s#^$1##" | while read -r program; do
        chroot "$1" "$loader" --list "$program" 2>&1 |
            grep -e 'cannot open shared object file' -e 'not found' | sed "s#^#$program:#"
    done)
    [ -z "$broken" ] || die "libraries are missing in the image: $broken"
}

# blob FILE: moves a file into the layout by its digest; prints the descriptor's digest and size.
blob() {
    digest=$(sha256sum "$1" | cut -d ' ' -f 1)
    size=$(stat -c %s "$1")
    mv "$1" "$layout/blobs/sha256/$digest"
    printf '"digest":"sha256:%s","size":%s' "$digest" "$size"
}

# pack ROOT CONFIG FILE NAME...: writes the image tar. CONFIG is the `config` object of the image
# configuration; NAME are full names such as docker.io/library/postgres:15. The same root gives the same
# bytes: entries are sorted and carry no time of their own.
pack() {
    root=$1 config=$2 file=$3
    shift 3
    layout=$work/layout
    mkdir -p "$layout/blobs/sha256"
    tar --sort=name --mtime=@1700000000 --numeric-owner --format=gnu -C "$root" -cf "$work/layer.tar" .
    layer=$(blob "$work/layer.tar")
    diff_id=$(printf '%s' "$layer" | cut -d '"' -f 4)
    printf '{"architecture":"%s","os":"linux","created":"2023-11-14T22:13:20Z","config":%s,"rootfs":{"type":"layers","diff_ids":["%s"]},"history":[{"created":"2023-11-14T22:13:20Z","created_by":"keelson images/build.sh"}]}' \
        "$architecture" "$config" "$diff_id" >"$work/config.json"
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar",%s}]}' \
        "$(blob "$work/config.json")" "$layer" >"$work/manifest.json"
    manifest=$(blob "$work/manifest.json")
    entries=
    for name in "$@"; do
        entries="$entries${entries:+,}{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",$manifest,\"platform\":{\"architecture\":\"$architecture\",\"os\":\"linux\"},\"annotations\":{\"io.containerd.image.name\":\"$name\",\"org.opencontainers.image.ref.name\":\"${name##*:}\"}}"
    done
    printf '{"schemaVersion":2,"manifests":[%s]}' "$entries" >"$layout/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
    tar --sort=name --mtime=@1700000000 --owner=0 --group=0 --numeric-owner --format=gnu \
        -C "$layout" -cf "$file.new" oci-layout index.json blobs
    mv "$file.new" "$file"
}
