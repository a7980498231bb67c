#!/bin/sh
# Starts Redis as Docker's image does: options or a configuration file alone mean redis-server; root
# gives /data to the user redis and becomes it; clients from other hosts are served without a password
# unless something says otherwise (Docker's build has protected-mode off by default).
set -e

case ${1:-redis-server} in
-* | *.conf) set -- redis-server "$@" ;;
esac
[ "${1##*/}" = redis-server ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
    find . ! -user redis -exec chown redis {} + 2>/dev/null || echo "cannot give $PWD to the user redis" >&2
    exec setpriv --reuid=redis --regid=redis --init-groups --inh-caps=-all "$0" "$@"
fi

[ "$(umask)" != 0022 ] || umask 0077
configured=false
for argument; do
    case $argument in
    --protected-mode | --help | -h | --version | -v | --test-memory | --sentinel | -) configured=true ;;
    *.conf) ! grep -qsi '^[[:space:]]*protected-mode' "$argument" || configured=true ;;
    esac
done
$configured || set -- "$@" --protected-mode no
exec "$@"
