// Package upstream pins the modules of upstream's conformance program, which `go test -c` builds from here.
package upstream

import _ "k8s.io/kubernetes/test/e2e"
