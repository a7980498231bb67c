package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/pager"
	retry "k8s.io/client-go/tools/watch"
)

func watchListJSON(ctx context.Context, env *env) error {
	return informed(ctx, env, env.traced, true)
}

func watchListProtobuf(ctx context.Context, env *env) error {
	return errors.Join(informed(ctx, env, env.proto, true), env.trace.allProtobuf())
}

// listWatchInformer starts with a LIST, as clients before 0.35 do.
func listWatchInformer(ctx context.Context, env *env) error {
	configMaps := env.traced.CoreV1().ConfigMaps(env.namespace)
	lister := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return configMaps.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			if options.SendInitialEvents != nil {
				return nil, apierrors.NewInvalid(schema.GroupKind{}, "", nil)
			}
			return configMaps.Watch(ctx, options)
		},
	}
	if _, err := configMaps.Create(ctx, configMap("before", nil), metav1.CreateOptions{}); err != nil {
		return err
	}
	informer := cache.NewSharedIndexInformer(lister, &corev1.ConfigMap{}, 0, cache.Indexers{})
	go informer.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return errors.New("the informer did not synchronise")
	}
	return holds(ctx, informer, env.namespace+"/before")
}

func holds(ctx context.Context, informer cache.SharedIndexInformer, keys ...string) error {
	return until(ctx, "informer's cache", func() error {
		for _, key := range keys {
			if _, found, _ := informer.GetStore().GetByKey(key); !found {
				return fmt.Errorf("%s is missing among %v", key, informer.GetStore().ListKeys())
			}
		}
		return nil
	})
}

func informed(ctx context.Context, env *env, client *kubernetes.Clientset, streamed bool) error {
	configMaps := client.CoreV1().ConfigMaps(env.namespace)
	for _, name := range []string{"one", "two"} {
		if _, err := configMaps.Create(ctx, configMap(name, nil), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(env.namespace))
	informer := factory.Core().V1().ConfigMaps().Informer()
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return errors.New("the informer did not synchronise: no bookmark that ends the initial events?")
	}
	if err := holds(ctx, informer, env.namespace+"/one", env.namespace+"/two"); err != nil {
		return err
	}
	if _, err := configMaps.Create(ctx, configMap("three", nil), metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := configMaps.Delete(ctx, "one", metav1.DeleteOptions{}); err != nil {
		return err
	}
	if err := holds(ctx, informer, env.namespace+"/three"); err != nil {
		return err
	}
	gone := until(ctx, "deletion", func() error {
		_, found, _ := informer.GetStore().GetByKey(env.namespace + "/one")
		return expect(!found, "a deleted object is still cached")
	})
	env.trace.Lock()
	defer env.trace.Unlock()
	for _, e := range env.trace.seen {
		if streamed && e.method == "GET" && strings.HasSuffix(e.path, "/configmaps") && !strings.Contains(e.query, "watch=true") {
			return fmt.Errorf("the informer fell back to a LIST: %s?%s", e.path, e.query)
		}
	}
	return gone
}

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

func define(ctx context.Context, env *env, plural, kind string) (schema.GroupVersionResource, error) {
	group := env.namespace + ".keelson.test"
	text := map[string]any{"type": "string"}
	definition := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": plural + "." + group},
		"spec": map[string]any{
			"group": group, "scope": "Namespaced",
			"names": map[string]any{"plural": plural, "kind": kind, "singular": strings.ToLower(kind), "listKind": kind + "List"},
			"versions": []any{map[string]any{
				"name": "v1", "served": true, "storage": true,
				"subresources": map[string]any{"status": map[string]any{}},
				"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "properties": map[string]any{
					"spec": map[string]any{"type": "object", "properties": map[string]any{
						"text": text, "mode": map[string]any{"type": "string", "default": "plain"},
					}},
					"status": map[string]any{"type": "object", "properties": map[string]any{"said": text}},
				}}},
			}},
		},
	}}
	kindOf := schema.GroupVersionResource{Group: group, Version: "v1", Resource: plural}
	if _, err := env.dynamic.Resource(definitions).Create(ctx, definition, metav1.CreateOptions{}); err != nil {
		return kindOf, err
	}
	return kindOf, until(ctx, "the new kind", func() error {
		_, err := env.dynamic.Resource(kindOf).List(ctx, metav1.ListOptions{})
		return err
	})
}

func dynamicWorks(ctx context.Context, env *env) error {
	kind, err := define(ctx, env, "notes", "Note")
	if err != nil {
		return err
	}
	informer := dynamicinformer.NewFilteredDynamicSharedInformerFactory(env.dynamic, 0, env.namespace, nil).ForResource(kind).Informer()
	go informer.RunWithContext(ctx)
	notes := env.dynamic.Resource(kind).Namespace(env.namespace)
	note := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": kind.GroupVersion().String(), "kind": "Note",
		"metadata": map[string]any{"name": "n"}, "spec": map[string]any{"text": "hello", "unknown": 1},
	}}
	made, err := notes.Create(ctx, note, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	mode, _, _ := unstructured.NestedString(made.Object, "spec", "mode")
	_, pruned, _ := unstructured.NestedFieldNoCopy(made.Object, "spec", "unknown")
	if err := unstructured.SetNestedField(made.Object, "yes", "status", "said"); err != nil {
		return err
	}
	updated, err := notes.UpdateStatus(ctx, made, metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	said, _, _ := unstructured.NestedString(updated.Object, "status", "said")
	if err := holds(ctx, informer, env.namespace+"/n"); err != nil {
		return err
	}
	return errors.Join(
		expect(mode == "plain", "default is %q", mode),
		expect(!pruned, "an unknown field was kept"),
		expect(said == "yes" && updated.GetGeneration() == 1, "status %q at generation %d", said, updated.GetGeneration()),
		notes.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}),
		env.dynamic.Resource(definitions).Delete(ctx, kind.Resource+"."+kind.Group, metav1.DeleteOptions{}),
	)
}

func metadataWorks(ctx context.Context, env *env) error {
	made, err := env.json.CoreV1().Secrets(env.namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "s", Labels: map[string]string{"app": "compat"}, Annotations: map[string]string{"a": "b"}},
		StringData: map[string]string{"k": "hidden"},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	secrets := env.metadata.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(env.namespace)
	got, err := secrets.Get(ctx, "s", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	list, err := secrets.List(ctx, metav1.ListOptions{LabelSelector: "app=compat"})
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	watching, err := secrets.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion, LabelSelector: "app=compat"})
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer watching.Stop()
	patched, err := secrets.Patch(ctx, "s", types.MergePatchType, []byte(`{"metadata":{"labels":{"more":"1"}}}`), metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("patch: %w", err)
	}
	event, err := next(ctx, watching, watch.Modified, "s")
	if err != nil {
		return err
	}
	seen, partial := event.Object.(*metav1.PartialObjectMetadata)
	if err := secrets.Delete(ctx, "s", metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	_, deleted := next(ctx, watching, watch.Deleted, "s")
	return errors.Join(deleted,
		expect(got.UID == made.UID && got.Annotations["a"] == "b", "get gave %v", got.ObjectMeta),
		expect(len(list.Items) == 1 && list.Items[0].UID == made.UID, "list gave %v", list.Items),
		expect(patched.Labels["more"] == "1", "patch gave %v", patched.Labels),
		expect(partial && seen.Labels["more"] == "1", "watch gave %v", event.Object),
		env.trace.allProtobuf(),
	)
}

func pagerWorks(ctx context.Context, env *env) error {
	configMaps := env.traced.CoreV1().ConfigMaps(env.namespace)
	for at := range 10 {
		if _, err := configMaps.Create(ctx, configMap(fmt.Sprintf("page-%d", at), nil), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	selector := metav1.ListOptions{LabelSelector: "app=compat"}
	pages := 0
	byPage := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		list, err := configMaps.List(ctx, options)
		pages++
		if pages == 1 && err == nil {
			err = configMaps.Delete(ctx, "page-9", metav1.DeleteOptions{})
		}
		return list, err
	})
	byPage.PageSize = 3
	names := []string{}
	err := byPage.EachListItem(ctx, selector, func(object runtime.Object) error {
		names = append(names, object.(*corev1.ConfigMap).Name)
		return nil
	})
	if err != nil {
		return err
	}
	first, err := configMaps.List(ctx, metav1.ListOptions{Limit: 4})
	if err != nil {
		return err
	}
	_, broken := configMaps.List(ctx, metav1.ListOptions{Limit: 4, Continue: "nonsense"})
	whole, err := configMaps.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	remaining := first.RemainingItemCount
	return errors.Join(
		expect(len(names) == 10 && pages >= 4, "%d pages gave %v", pages, names),
		expect(remaining != nil && int(*remaining) == len(whole.Items)-4, "remainingItemCount is %v of %d", remaining, len(whole.Items)),
		expect(apierrors.IsBadRequest(broken), "a broken continue token: %v", broken),
	)
}

func listStates(ctx context.Context, env *env) error {
	configMaps := env.traced.CoreV1().ConfigMaps(env.namespace)
	made, err := configMaps.Create(ctx, configMap("a", nil), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if err := configMaps.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		return err
	}
	var wrong []error
	for _, row := range []struct {
		at, match string
		there     bool
	}{
		{"", "", false}, {"0", "", false}, {"0", "NotOlderThan", false}, {made.ResourceVersion, "NotOlderThan", false},
		{made.ResourceVersion, "", false}, {made.ResourceVersion, "Exact", true},
	} {
		options := metav1.ListOptions{LabelSelector: "app=compat", ResourceVersion: row.at,
			ResourceVersionMatch: metav1.ResourceVersionMatch(row.match)}
		list, err := configMaps.List(ctx, options)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%v: %w", row, err))
			continue
		}
		wrong = append(wrong, expect((len(list.Items) == 1) == row.there, "%v gave %d items", row, len(list.Items)))
		if row.match == "Exact" {
			wrong = append(wrong, expect(list.ResourceVersion == row.at, "%v is at %s", row, list.ResourceVersion))
		}
	}
	return errors.Join(wrong...)
}

func watchResumes(ctx context.Context, env *env) error {
	configMaps := env.traced.CoreV1().ConfigMaps(env.namespace)
	made, err := configMaps.Create(ctx, configMap("a", nil), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	// Each connection is cut by the server after a second; the watcher goes on where it was.
	lister := &cache.ListWatch{WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		second := int64(1)
		options.TimeoutSeconds = &second
		options.LabelSelector = "app=compat"
		return configMaps.Watch(ctx, options)
	}}
	watching, err := retry.NewRetryWatcherWithContext(ctx, made.ResourceVersion, lister)
	if err != nil {
		return err
	}
	defer watching.Stop()
	cuts := func() (cuts int) {
		env.trace.Lock()
		defer env.trace.Unlock()
		for _, e := range env.trace.seen {
			if strings.Contains(e.query, "watch=true") {
				cuts++
			}
		}
		return cuts
	}
	for round := 1; cuts() < 3; round++ {
		made.Data = map[string]string{"round": strconv.Itoa(round)}
		if made, err = configMaps.Update(ctx, made, metav1.UpdateOptions{}); err != nil {
			return err
		}
		event, err := next(ctx, watching, watch.Modified, "a")
		if err != nil {
			return err
		}
		if got := event.Object.(*corev1.ConfigMap).Data["round"]; got != strconv.Itoa(round) {
			return fmt.Errorf("round %d came as %s", round, got)
		}
	}
	return nil
}

func watchSelector(ctx context.Context, env *env) error {
	configMaps := env.traced.CoreV1().ConfigMaps(env.namespace)
	watching, err := configMaps.Watch(ctx, metav1.ListOptions{LabelSelector: "app=compat"})
	if err != nil {
		return err
	}
	defer watching.Stop()
	made, err := configMaps.Create(ctx, configMap("a", nil), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	relabel := func(app string) error {
		_, err := configMaps.Patch(ctx, made.Name, types.MergePatchType,
			[]byte(fmt.Sprintf(`{"metadata":{"labels":{"app":%q}}}`, app)), metav1.PatchOptions{})
		return err
	}
	for _, step := range []struct {
		act      func() error
		expected watch.EventType
	}{
		{func() error { return nil }, watch.Added},
		{func() error { return relabel("other") }, watch.Deleted},
		{func() error { return relabel("compat") }, watch.Added},
		{func() error { return configMaps.Delete(ctx, "a", metav1.DeleteOptions{}) }, watch.Deleted},
	} {
		if err := step.act(); err != nil {
			return err
		}
		if _, err := next(ctx, watching, step.expected, "a"); err != nil {
			return err
		}
	}
	return nil
}

func watchRevisions(ctx context.Context, env *env) error {
	configMaps := env.traced.CoreV1().ConfigMaps(env.namespace)
	list, err := configMaps.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	head, err := strconv.Atoi(list.ResourceVersion)
	if err != nil {
		return err
	}
	future := strconv.Itoa(head + 1_000_000)
	// The client would ask again ten times, a second apart, as the answer says.
	large := env.traced.CoreV1().RESTClient().Get().AbsPath("/api/v1/namespaces/"+env.namespace+"/configmaps").
		Param("resourceVersion", future).Param("resourceVersionMatch", "NotOlderThan").MaxRetries(0).Do(ctx).Error()
	_, nonsense := configMaps.List(ctx, metav1.ListOptions{ResourceVersion: "x"})
	_, alone := configMaps.List(ctx, metav1.ListOptions{ResourceVersionMatch: "Exact"})
	yes := true
	watching, err := configMaps.Watch(ctx, metav1.ListOptions{
		SendInitialEvents: &yes, AllowWatchBookmarks: true, ResourceVersionMatch: "NotOlderThan", LabelSelector: "app=none",
	})
	if err != nil {
		return err
	}
	defer watching.Stop()
	event, err := next(ctx, watching, watch.Bookmark, "")
	if err != nil {
		return err
	}
	mark := event.Object.(*corev1.ConfigMap)
	return errors.Join(
		expect(apierrors.IsTimeout(large) && apierrors.HasStatusCause(large, metav1.CauseTypeResourceVersionTooLarge), "too large: %v", large),
		expect(apierrors.IsInvalid(nonsense) || apierrors.IsBadRequest(nonsense), "resourceVersion x: %v", nonsense),
		expect(apierrors.IsInvalid(alone), "a match without a version: %v", alone),
		expect(mark.Annotations[metav1.InitialEventsAnnotationKey] == "true" && mark.ResourceVersion != "", "the bookmark is %v", mark.ObjectMeta),
	)
}
