. "$directory/../lib.sh"
names="$upstream/nonewprivs:1.4"
config='{"Cmd":["nnp"],"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}'

build() {
    small "$1"
    go_program k8s.io/kubernetes/test/images/nonewprivs "$1/usr/local/bin/nnp"
    chmod 4755 "$1/usr/local/bin/nnp"
}
