. "$directory/../lib.sh"
names="$upstream/kitten:1.8"
config='{"Entrypoint":["/agnhost"],"Cmd":["test-webserver"]}'

build() {
    small "$1"
    go_program k8s.io/kubernetes/test/images/agnhost "$1/agnhost"
    printf 'NAME="Alpine Linux"\nID=alpine\nPRETTY_NAME="Alpine Linux"\n' >"$1/etc/os-release"
    printf '{\n  "image": "kitten.jpg"\n}\n' >"$1/data.json"
    : >"$1/kitten.jpg"
}
