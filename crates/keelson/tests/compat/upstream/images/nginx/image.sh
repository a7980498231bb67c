# nginx as Debian has it, where upstream's image has its pages.
. "$directory/../lib.sh"
packages='nginx nginx-common bash dash coreutils libc-bin'
names="$upstream/nginx:1.15-4 $upstream/nginx:1.27-0"
config='{"Cmd":["nginx","-g","daemon off;"],"StopSignal":"SIGTERM","ExposedPorts":{"80/tcp":{}},"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}'

build() {
    # shellcheck disable=SC2086 # a list of names
    unpack "$1" $packages
    base "$1"
    slim "$1"
    applets "$1"
    mkdir -p "$1/usr/share/nginx/html" "$1/var/log/nginx" "$1/var/lib/nginx"
    [ -e "$1/usr/share/nginx/html/index.html" ] || printf '<h1>Welcome to nginx!</h1>\n' >"$1/usr/share/nginx/html/index.html"
    printf '%s\n' 'user root;' 'worker_processes 1;' 'error_log /dev/stderr;' 'pid /run/nginx.pid;' \
        'events { worker_connections 256; }' \
        'http { access_log off; server { listen 80; root /usr/share/nginx/html; index index.html; } }' \
        >"$1/etc/nginx/nginx.conf"
    chroot "$1" /usr/sbin/nginx -t 2>/dev/null || say "nginx -t wants devices; its configuration was not checked"
}
