# PostgreSQL 15 from Debian, with the user, paths, variables and defaults of Docker's image. Without the
# JIT compiler (see closure in lib.sh).
packages='postgresql-15 postgresql-client-15 bash dash coreutils findutils grep sed gzip xz-utils zstd
    util-linux hostname libc-bin libnss-wrapper locales tzdata'
names=docker.io/library/postgres:15
config='{"Entrypoint":["docker-entrypoint.sh"],"Cmd":["postgres"],"StopSignal":"SIGINT","Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/15/bin","LANG=en_US.utf8","PG_MAJOR=15","PGDATA=/var/lib/postgresql/data"],"ExposedPorts":{"5432/tcp":{}},"Volumes":{"/var/lib/postgresql/data":{}}}'

build() {
    case $available in
    *postgresql-15=15.*) ;;
    *) die "this machine's package sources have no PostgreSQL 15; build on Debian 12" ;;
    esac
    # shellcheck disable=SC2086 # a list of names
    unpack "$1" $packages
    base "$1"
    account "$1" postgres 999 /var/lib/postgresql
    # like locale-gen of Docker's image
    chroot "$1" localedef -i en_US -c -f UTF-8 en_US.UTF-8 || die "cannot make the locale en_US.UTF-8"
    rm -rf "$1/usr/lib/postgresql/15/lib/bitcode" "$1"/usr/lib/postgresql/15/lib/llvmjit*
    rm -rf "$1/etc/postgresql" "$1/etc/postgresql-common" "$1/var/log/postgresql"
    mkdir -p "$1/docker-entrypoint-initdb.d" "$1/usr/local/bin" "$1/var/lib/postgresql/data" "$1/run/postgresql"
    chown -R 999:999 "$1/var/lib/postgresql" "$1/run/postgresql"
    chmod 1777 "$1/var/lib/postgresql/data"
    chmod 3777 "$1/run/postgresql"
    # every address is served; Debian's sample says localhost
    sed -i "s/^#listen_addresses = .*/listen_addresses = '*'/" "$1/usr/share/postgresql/15/postgresql.conf.sample"
    install -m 755 "$here/postgres/docker-entrypoint.sh" "$1/usr/local/bin/docker-entrypoint.sh"
    slim "$1"
    chroot "$1" /usr/lib/postgresql/15/bin/postgres --version >/dev/null || die "postgres does not run in its image"
}
