# Redis 7 from Debian, with the user, paths and defaults of Docker's image.
packages='redis-server redis-tools bash dash coreutils findutils grep sed util-linux libc-bin'
names=docker.io/library/redis:7
config='{"Entrypoint":["docker-entrypoint.sh"],"Cmd":["redis-server"],"WorkingDir":"/data","Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","REDIS_VERSION=7"],"ExposedPorts":{"6379/tcp":{}},"Volumes":{"/data":{}}}'

build() {
    case $available in
    *redis-server=5:7.*) ;;
    *) die "this machine's package sources have no Redis 7; build on Debian 12" ;;
    esac
    # shellcheck disable=SC2086 # a list of names
    unpack "$1" $packages
    base "$1"
    account "$1" redis 999 /data
    rm -rf "$1/etc/redis" "$1/var/lib/redis" "$1/var/log/redis"
    mkdir -p "$1/data" "$1/usr/local/bin"
    chown 999:999 "$1/data"
    install -m 755 "$here/redis/docker-entrypoint.sh" "$1/usr/local/bin/docker-entrypoint.sh"
    slim "$1"
    chroot "$1" /usr/bin/redis-server --version >/dev/null || die "redis-server does not run in its image"
}
