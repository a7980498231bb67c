#!/bin/bash
# Starts PostgreSQL with the variables, files and users of Docker's image:
#
#   POSTGRES_PASSWORD          superuser's password; needed for a new cluster unless the method is trust
#   POSTGRES_USER              superuser, default postgres
#   POSTGRES_DB                first database, default the superuser's name
#   POSTGRES_INITDB_ARGS       more arguments for initdb
#   POSTGRES_INITDB_WALDIR     directory of the write-ahead log
#   POSTGRES_HOST_AUTH_METHOD  method for remote clients, default the server's password_encryption
#   PGDATA                     data directory, default /var/lib/postgresql/data
#
# The first five may end in _FILE and name a file with the value. Files in /docker-entrypoint-initdb.d
# (*.sh, *.sql, *.sql.gz, *.sql.xz, *.sql.zst) are run once, in order, after the cluster was made.
# Runs as root (then it becomes postgres), as postgres or as any other user, and on a read-only root.
set -Eeuo pipefail

fail() {
    printf 'postgres: %s\n' "$*" >&2
    exit 1
}

# value NAME [DEFAULT]: sets NAME from itself, from the file in NAME_FILE, or to the default.
value() {
    local name=$1 file=${1}_FILE
    [[ -z ${!name:-} || -z ${!file:-} ]] || fail "both $name and $file are set; set one"
    if [[ -n ${!file:-} ]]; then
        [[ -r ${!file} ]] || fail "$file names ${!file}, which cannot be read"
        printf -v "$name" '%s' "$(<"${!file}")"
    elif [[ -z ${!name:-} ]]; then
        printf -v "$name" '%s' "${2:-}"
    fi
    export "${name?}"
    unset "$file"
}

# asks_only ARGUMENT...: whether postgres is only to tell something and exit.
asks_only() {
    local argument
    for argument; do
        case $argument in
        -'?' | --help | --describe-config | -V | --version) return 0 ;;
        esac
    done
    return 1
}

# The directory for the Unix socket: the usual one, or where a read-only root can be written.
socket_directory() {
    local directory
    for directory in /var/run/postgresql /tmp "$PGDATA"; do
        if [[ -w $directory ]]; then
            printf '%s' "$directory"
            return
        fi
    done
}

become_postgres() {
    mkdir -p "$PGDATA" && chmod 700 "$PGDATA" || echo "postgres: cannot prepare $PGDATA" >&2
    find "$PGDATA" ! -user postgres -exec chown postgres {} + || echo "postgres: cannot give $PGDATA to postgres" >&2
    if mkdir -p /var/run/postgresql 2>/dev/null; then
        chown postgres /var/run/postgresql 2>/dev/null && chmod 3775 /var/run/postgresql 2>/dev/null || true
    fi
    if [[ -n ${POSTGRES_INITDB_WALDIR:-} ]]; then
        mkdir -p "$POSTGRES_INITDB_WALDIR" && chmod 700 "$POSTGRES_INITDB_WALDIR"
        find "$POSTGRES_INITDB_WALDIR" ! -user postgres -exec chown postgres {} +
    fi
    exec setpriv --reuid=postgres --regid=postgres --init-groups --inh-caps=-all "$0" "$@"
}

check_password() {
    [[ -n $POSTGRES_PASSWORD || $POSTGRES_HOST_AUTH_METHOD == trust ]] || fail \
        "the database is new and no superuser password is given; set POSTGRES_PASSWORD to a non-empty value, or POSTGRES_HOST_AUTH_METHOD=trust to let everybody in without one"
    [[ $POSTGRES_HOST_AUTH_METHOD != trust ]] ||
        echo "postgres: POSTGRES_HOST_AUTH_METHOD is trust: anyone who reaches port 5432 is let in" >&2
}

make_cluster() {
    # initdb looks its user up; a user without an account gets one for the time
    if ! getent passwd "$(id -u)" >/dev/null; then
        local accounts=$PGDATA/../.accounts-$$
        [[ -w $PGDATA/.. ]] || accounts=/dev/shm/.accounts-$$
        mkdir -p "$accounts"
        printf 'postgres:x:%s:%s::%s:/bin/false\n' "$(id -u)" "$(id -g)" "$PGDATA" >"$accounts/passwd"
        printf 'postgres:x:%s:\n' "$(id -g)" >"$accounts/group"
        export LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_PASSWD=$accounts/passwd NSS_WRAPPER_GROUP=$accounts/group
    fi
    local -a arguments=(--username="$POSTGRES_USER")
    [[ -z ${POSTGRES_INITDB_WALDIR:-} ]] || arguments+=(--waldir="$POSTGRES_INITDB_WALDIR")
    # the arguments are written as in a shell, with quotes
    local -a more=()
    eval "more=(${POSTGRES_INITDB_ARGS:-})"
    # by a pipe: a file would need a place that can be written, and would stay when we are killed
    initdb "${arguments[@]}" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") "${more[@]}"
    if [[ -n ${NSS_WRAPPER_PASSWD:-} ]]; then
        rm -rf "${NSS_WRAPPER_PASSWD%/*}"
        unset LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
    fi
}

allow_remote() {
    local method=$POSTGRES_HOST_AUTH_METHOD
    [[ -n $method ]] || method=$(postgres -C password_encryption "${@:2}")
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

# Runs SQL against the temporary server; the database is POSTGRES_DB unless --dbname is given.
sql() {
    local -a command=(psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --no-password)
    [[ -z ${POSTGRES_DB:-} ]] || command+=(--dbname "$POSTGRES_DB")
    PGHOST=$socket PGHOSTADDR='' "${command[@]}" "$@"
}

run_files() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        [[ -e $file ]] || continue
        case $file in
        *.sh)
            echo "postgres: running $file"
            if [[ -x $file ]]; then "$file"; else . "$file"; fi
            ;;
        *.sql) echo "postgres: running $file" && sql -f "$file" ;;
        *.sql.gz) echo "postgres: running $file" && gunzip -c "$file" | sql ;;
        *.sql.xz) echo "postgres: running $file" && xzcat "$file" | sql ;;
        *.sql.zst) echo "postgres: running $file" && zstd -dc "$file" | sql ;;
        *) echo "postgres: ignoring $file" ;;
        esac
    done
}

# First contents of a new cluster, through a server that only this container can reach.
fill_cluster() {
    local -a options=("${@:2}" -c listen_addresses= -p "${PGPORT:-5432}" -c unix_socket_directories="$socket")
    NOTIFY_SOCKET='' PGHOST=$socket PGUSER=$POSTGRES_USER PGPASSWORD=$POSTGRES_PASSWORD \
        pg_ctl -D "$PGDATA" -o "$(printf '%q ' "${options[@]}")" -w -t "${PGCTLTIMEOUT:-300}" start
    export PGPASSWORD=$POSTGRES_PASSWORD PGHOST=$socket
    local exists
    exists=$(POSTGRES_DB='' sql --dbname postgres -tA -v db="$POSTGRES_DB" \
        <<<"SELECT 1 FROM pg_database WHERE datname = :'db'")
    [[ -n $exists ]] || POSTGRES_DB='' sql --dbname postgres -v db="$POSTGRES_DB" <<<'CREATE DATABASE :"db"'
    run_files
    pg_ctl -D "$PGDATA" -m fast -w stop
    unset PGPASSWORD PGHOST
}

[[ ${1:-postgres} != -* ]] || set -- postgres "$@"
if [[ ${1##*/} != postgres ]] || asks_only "${@:2}"; then
    exec "$@"
fi
export PGDATA=${PGDATA:-/var/lib/postgresql/data}
[[ $(id -u) != 0 ]] || become_postgres "$@"

mkdir -p "$PGDATA"
chmod 700 "$PGDATA" 2>/dev/null || true
socket=$(socket_directory)
if [[ ! -s $PGDATA/PG_VERSION ]]; then
    value POSTGRES_PASSWORD
    value POSTGRES_USER postgres
    value POSTGRES_DB "$POSTGRES_USER"
    value POSTGRES_INITDB_ARGS
    : "${POSTGRES_HOST_AUTH_METHOD:=}"
    check_password
    make_cluster
    allow_remote "$@"
    fill_cluster "$@"
    echo "postgres: the database is made"
else
    echo "postgres: using the database in $PGDATA"
fi
[[ $socket == /var/run/postgresql ]] || [[ " $* " == *unix_socket_directories* ]] ||
    set -- "$@" -c unix_socket_directories="$socket"
unset POSTGRES_PASSWORD
exec "$@"
