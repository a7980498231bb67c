module keelson/xtask/kinds-gen

go 1.26
