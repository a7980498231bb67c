. "$directory/../lib.sh"
names="$upstream/sample-apiserver:1.29.2"
config='{"Entrypoint":["/kube-sample-apiserver"]}'

build() {
    small "$1"
    go_program k8s.io/sample-apiserver "$1/kube-sample-apiserver"
}
