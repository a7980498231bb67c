. "$directory/../lib.sh"
names="$upstream/nonroot:1.5"
config='{"Cmd":["sh"],"User":"1234","Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}'

build() {
    small "$1"
}
