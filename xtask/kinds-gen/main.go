// Command kinds-gen writes crates/kinds/src/schemas.txt: the structure of every built-in type, read from the
// Go types of the pinned upstream modules. Structure only: names, types, defaults, enums, list and map
// semantics, patch directives, protobuf numbers. No descriptions.
//
// It parses sources with go/ast and compiles nothing of upstream. Run it in this folder:
//
//	go run . > ../../crates/kinds/src/schemas.txt
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Upstream's release. Changing it and running again is the whole update of the table.
const release = "v0.36.0"

// Packages whose kinds are served, or are bodies of subresources and virtual kinds.
var roots = []string{
	"k8s.io/api/core/v1",
	"k8s.io/api/apps/v1",
	"k8s.io/api/batch/v1",
	"k8s.io/api/discovery/v1",
	"k8s.io/api/networking/v1",
	"k8s.io/api/policy/v1",
	"k8s.io/api/rbac/v1",
	"k8s.io/api/storage/v1",
	"k8s.io/api/coordination/v1",
	"k8s.io/api/events/v1",
	"k8s.io/api/autoscaling/v1",
	"k8s.io/api/autoscaling/v2",
	"k8s.io/api/scheduling/v1",
	"k8s.io/api/node/v1",
	"k8s.io/api/authentication/v1",
	"k8s.io/api/authorization/v1",
	"k8s.io/api/admissionregistration/v1",
	"k8s.io/api/certificates/v1",
	"k8s.io/api/flowcontrol/v1",
	"k8s.io/api/resource/v1",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1",
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1",
}

// Types that requests carry although no kind refers to them.
var extras = map[string][]string{
	"k8s.io/apimachinery/pkg/apis/meta/v1": {
		"DeleteOptions", "PartialObjectMetadata", "PartialObjectMetadataList", "Status", "ListMeta", "APIResourceList", "APIGroupList", "APIGroup", "APIVersions", "WatchEvent",
	},
}

func main() {
	dirs, err := modules("k8s.io/api", "k8s.io/apimachinery", "k8s.io/apiextensions-apiserver", "k8s.io/kube-aggregator")
	if err != nil {
		fmt.Fprintln(os.Stderr, "kinds-gen:", err)
		os.Exit(1)
	}
	table := newTable(newSources(dirs))
	for _, path := range roots {
		if err := table.addKinds(path); err != nil {
			fmt.Fprintln(os.Stderr, "kinds-gen:", err)
			os.Exit(1)
		}
	}
	for path, names := range extras {
		for _, name := range names {
			if _, err := table.named(path, name); err != nil {
				fmt.Fprintln(os.Stderr, "kinds-gen:", err)
				os.Exit(1)
			}
		}
	}
	out := bufio.NewWriter(os.Stdout)
	table.write(out)
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "kinds-gen: write table:", err)
		os.Exit(1)
	}
}

// modules downloads (through the checksum database) and locates each module at the pinned release.
func modules(paths ...string) (map[string]string, error) {
	dirs := map[string]string{}
	for _, path := range paths {
		out, err := exec.Command("go", "mod", "download", "-json", path+"@"+release).Output()
		if err != nil {
			return nil, fmt.Errorf("download %s@%s: %w: %s", path, release, err, strings.TrimSpace(string(out)))
		}
		var info struct{ Dir string }
		if err := json.Unmarshal(out, &info); err != nil || info.Dir == "" {
			return nil, fmt.Errorf("locate %s@%s: no directory in answer", path, release)
		}
		dirs[path] = info.Dir
	}
	return dirs, nil
}
