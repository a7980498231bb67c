// Command compat holds a Kubernetes API server against client-go and controller-runtime: every check is a
// line of the table, and each says in one sentence what a client found wrong.
//
//	compat --kubeconfig FILE [CHECK...]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// A check has a namespace of its own and this long; the machine may be busy.
const patience = 2 * time.Minute

type check struct {
	name string
	run  func(context.Context, *env) error
}

var checks = []check{
	{"discovery: groups, preferred resources and version without errors", discoveryWorks},
	{"discovery: RESTMapper finds kinds, plurals and short names", mapperWorks},
	{"openapi: v2 as protobuf and v3 by group", openAPIWorks},
	{"protobuf: typed create, get, list, update, patch, delete and nothing but protobuf", protobufWrites},
	{"protobuf: watch frames", protobufWatch},
	{"protobuf: errors are Status that the client's predicates know", protobufErrors},
	{"protobuf: a list of every built-in kind is the same as in JSON", everyKindTwice},
	{"protobuf: 406 for a Table, 415 for an unknown body", refusedMedia},
	{"gzip: a large list is compressed, a small answer is not", compression},
	{"informer: WatchList over JSON without a LIST", watchListJSON},
	{"informer: WatchList over protobuf without a LIST", watchListProtobuf},
	{"informer: plain LIST and WATCH", listWatchInformer},
	{"dynamic: custom resource definition and its objects", dynamicWorks},
	{"metadata: get, list, watch, patch and delete", metadataWorks},
	{"apply: ownership, conflict with causes, force and no-op", applyWorks},
	{"apply: strict validation, dry run and warnings", strictWorks},
	{"pager: pages of one revision while objects change", pagerWorks},
	{"pager: resourceVersion and resourceVersionMatch", listStates},
	{"watch: resumes after a cut and sees each change once", watchResumes},
	{"watch: an object that leaves the selector is deleted", watchSelector},
	{"watch: expired and too large revisions", watchRevisions},
	{"leader election: one leads, the other takes over", leaderElection},
	{"eviction: a budget refuses with 429, then lets go", evictionWorks},
	{"scale: get, update and patch", scaleWorks},
	{"tokens and reviews", reviewsWork},
	{"delete: preconditions, finalizers, collections", deletesWork},
	{"events: the same through both groups", eventsWork},
	{"controller-runtime: a manager with a controller, finalizer and status", managerWorks},
}

func main() {
	kubeconfig := flag.Lookup("kubeconfig")
	flag.Parse()
	klog.LogToStderr(false)
	klog.SetOutput(os.Stderr)
	ctrl.SetLogger(klog.Background())
	clients, err := connect(kubeconfig.Value.String())
	if err != nil {
		fmt.Fprintln(os.Stderr, "connect:", err)
		os.Exit(2)
	}
	passed, failed := 0, 0
	for number, check := range checks {
		if names := flag.Args(); len(names) > 0 && !slices.Contains(names, check.name) {
			continue
		}
		began := time.Now()
		if err := runOne(clients, number, check); err != nil {
			failed++
			fmt.Printf("FAIL %s (%.1fs): %v\n", check.name, time.Since(began).Seconds(), err)
			continue
		}
		passed++
		fmt.Printf("ok   %s (%.1fs)\n", check.name, time.Since(began).Seconds())
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}

func runOne(clients *clients, number int, check check) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("panic: %v", panicked)
		}
	}()
	env, err := clients.env(ctx, number)
	if err != nil {
		return err
	}
	return check.run(ctx, env)
}
