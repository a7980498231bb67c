. "$directory/../lib.sh"
names="$upstream/nautilus:1.8"
config='{"Entrypoint":["/agnhost"],"Cmd":["test-webserver"]}'

build() {
    picture "$1" nautilus
}
