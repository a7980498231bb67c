. "$directory/../lib.sh"
names="$upstream/kitten:1.8"
config='{"Entrypoint":["/agnhost"],"Cmd":["test-webserver"]}'

build() {
    picture "$1" kitten
}
