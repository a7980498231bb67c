package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/openapi"
	"k8s.io/client-go/restmapper"
)

func discoveryWorks(_ context.Context, env *env) error {
	version, err := env.discovery.ServerVersion()
	if err != nil {
		return err
	}
	_, resources, err := env.discovery.ServerGroupsAndResources()
	if err != nil {
		return err
	}
	preferred, err := env.discovery.ServerPreferredResources()
	if err != nil {
		return err
	}
	return errors.Join(
		expect(version.Major == "1", "major version is %q", version.Major),
		expect(len(resources) > 15, "only %d group versions", len(resources)),
		expect(len(preferred) > 15, "only %d preferred group versions", len(preferred)),
	)
}

func mapperWorks(_ context.Context, env *env) error {
	cached := memory.NewMemCacheClient(env.discovery)
	mapper := restmapper.NewShortcutExpander(restmapper.NewDeferredDiscoveryRESTMapper(cached), cached, nil)
	for short, expected := range map[string]string{
		"po": "pods", "deploy": "deployments", "sts": "statefulsets", "cm": "configmaps", "crd": "customresourcedefinitions",
		"pdb": "poddisruptionbudgets", "sa": "serviceaccounts", "ing": "ingresses",
	} {
		found, err := mapper.ResourceFor(schema.GroupVersionResource{Resource: short})
		if err != nil {
			return err
		}
		if found.Resource != expected {
			return fmt.Errorf("%s is %v", short, found)
		}
	}
	mapping, err := mapper.RESTMapping(schema.GroupKind{Group: "apps", Kind: "Deployment"}, "v1")
	if err != nil {
		return err
	}
	return expect(mapping.Scope.Name() == meta.RESTScopeNameNamespace, "scope of Deployment is %s", mapping.Scope.Name())
}

func openAPIWorks(_ context.Context, env *env) error {
	document, err := env.discovery.OpenAPISchema()
	if err != nil {
		return err
	}
	found := false
	for _, definition := range document.GetDefinitions().GetAdditionalProperties() {
		found = found || definition.GetName() == "io.k8s.api.core.v1.Pod"
	}
	paths, err := env.discovery.OpenAPIV3().Paths()
	if err != nil {
		return err
	}
	var apps openapi.GroupVersion = paths["apis/apps/v1"]
	if apps == nil {
		return errors.New("no apis/apps/v1 in /openapi/v3")
	}
	text, err := apps.Schema("application/json")
	return errors.Join(err, expect(found, "no Pod in /openapi/v2"),
		expect(strings.Contains(string(text), "io.k8s.api.apps.v1.Deployment"), "no Deployment in /openapi/v3"))
}

func deployment(name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	surge := intstr.FromString("25%")
	template := pod("").Spec
	template.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m")}
	template.Containers[0].Env = []corev1.EnvVar{{Name: "NAME", Value: "value"}}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Strategy: appsv1.DeploymentStrategy{
				Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge},
			},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: template},
		},
	}
}

func protobufWrites(ctx context.Context, env *env) error {
	deployments := env.proto.AppsV1().Deployments(env.namespace)
	made, err := deployments.Create(ctx, deployment("web", 0), metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	plain, err := env.json.AppsV1().Deployments(env.namespace).Get(ctx, "web", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get as JSON: %w", err)
	}
	if !equality.Semantic.DeepEqual(made.Spec, plain.Spec) {
		return fmt.Errorf("the spec differs\nprotobuf: %v\njson:     %v", made.Spec, plain.Spec)
	}
	// The deployment controller writes the status meanwhile.
	err = until(ctx, "update", func() error {
		got, err := deployments.Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		got.Spec.Template.Annotations = map[string]string{"a": "b"}
		_, err = deployments.Update(ctx, got, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	patch := []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"other:2"}]}}}}`)
	patched, err := deployments.Patch(ctx, "web", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("patch: %w", err)
	}
	listed, err := deployments.List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if err := deployments.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Data: map[string][]byte{"k": {0, 1, 255}}}
	stored, err := env.proto.CoreV1().Secrets(env.namespace).Create(ctx, secret, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create secret: %w", err)
	}
	return errors.Join(
		expect(patched.Spec.Template.Spec.Containers[0].Image == "other:2", "patch had no effect"),
		expect(len(listed.Items) == 1 && listed.ResourceVersion != "", "list has %d items at %q", len(listed.Items), listed.ResourceVersion),
		expect(string(stored.Data["k"]) == "\x00\x01\xff", "bytes became %v", stored.Data),
		env.trace.allProtobuf(),
	)
}

func protobufWatch(ctx context.Context, env *env) error {
	configMaps := env.proto.CoreV1().ConfigMaps(env.namespace)
	list, err := configMaps.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	options := metav1.ListOptions{ResourceVersion: list.ResourceVersion, LabelSelector: "app=compat"}
	watching, err := configMaps.Watch(ctx, options)
	if err != nil {
		return err
	}
	defer watching.Stop()
	made, err := configMaps.Create(ctx, configMap("a", map[string]string{"k": "1"}), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	made.Data["k"] = "2"
	if _, err := configMaps.Update(ctx, made, metav1.UpdateOptions{}); err != nil {
		return err
	}
	if err := configMaps.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		return err
	}
	for _, expected := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted} {
		event, err := next(ctx, watching, expected, "a")
		if err != nil {
			return err
		}
		if data := event.Object.(*corev1.ConfigMap).Data["k"]; (data == "1") != (expected == watch.Added) {
			return fmt.Errorf("%s carries %q", expected, data)
		}
	}
	return env.trace.allProtobuf()
}

func protobufErrors(ctx context.Context, env *env) error {
	pods := env.proto.CoreV1().Pods(env.namespace)
	_, missing := pods.Get(ctx, "none", metav1.GetOptions{})
	if _, err := pods.Create(ctx, pod("twice"), metav1.CreateOptions{}); err != nil {
		return err
	}
	_, twice := pods.Create(ctx, pod("twice"), metav1.CreateOptions{})
	_, invalid := pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "empty"}}, metav1.CreateOptions{})
	stale, err := pods.Get(ctx, "twice", metav1.GetOptions{})
	if err != nil {
		return err
	}
	stale.ResourceVersion = "1"
	_, conflict := pods.Update(ctx, stale, metav1.UpdateOptions{})
	var status *apierrors.StatusError
	causes := errors.As(invalid, &status) && status.ErrStatus.Details != nil && len(status.ErrStatus.Details.Causes) > 0
	return errors.Join(
		expect(apierrors.IsNotFound(missing), "missing: %v", missing),
		expect(apierrors.IsAlreadyExists(twice), "created twice: %v", twice),
		expect(apierrors.IsInvalid(invalid) && causes, "invalid: %v", invalid),
		expect(apierrors.IsConflict(conflict), "stale: %v", conflict),
		env.trace.allProtobuf(),
	)
}

// everyKindTwice reads each kind that client-go knows in both forms; the decoded objects must be equal.
func everyKindTwice(ctx context.Context, env *env) error {
	if _, err := env.json.AppsV1().Deployments(env.namespace).Create(ctx, deployment("some", 1), metav1.CreateOptions{}); err != nil {
		return err
	}
	preferred, err := env.discovery.ServerPreferredResources()
	if err != nil {
		return err
	}
	kinds := 0
	var wrong []error
	for _, group := range preferred {
		version, _ := schema.ParseGroupVersion(group.GroupVersion)
		for _, kind := range group.APIResources {
			listKind := version.WithKind(kind.Kind + "List")
			if !scheme.Scheme.Recognizes(listKind) || !strings.Contains(strings.Join(kind.Verbs, " "), "list") {
				continue
			}
			kinds++
			prefix := "/apis/" + group.GroupVersion
			if version.Group == "" {
				prefix = "/api/v1"
			}
			path := prefix + "/" + kind.Name
			wrong = append(wrong, sameTwice(ctx, env, path, listKind))
		}
	}
	return errors.Join(append(wrong, expect(kinds > 30, "only %d kinds were listed", kinds))...)
}

func sameTwice(ctx context.Context, env *env, path string, kind schema.GroupVersionKind) error {
	var lists [2]runtime.Object
	revision := ""
	for at, accepted := range []string{protobufType, "application/json"} {
		request := env.json.CoreV1().RESTClient().Get().AbsPath(path).SetHeader("Accept", accepted)
		if revision != "" {
			request = request.Param("resourceVersion", revision).Param("resourceVersionMatch", "Exact")
		}
		body, err := request.DoRaw(ctx)
		if err != nil {
			return fmt.Errorf("%s as %s: %w", path, accepted, err)
		}
		object, found, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
		if err != nil {
			return fmt.Errorf("%s as %s: %w", path, accepted, err)
		}
		if *found != kind {
			return fmt.Errorf("%s as %s is a %s", path, accepted, found)
		}
		lists[at] = object
		// Items of a JSON list may say what they are; in protobuf they cannot.
		err = meta.EachListItem(object, func(item runtime.Object) error {
			item.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
			return nil
		})
		if err != nil {
			return err
		}
		// The second is of the same state, whatever happens meanwhile.
		revision = object.(metav1.ListInterface).GetResourceVersion()
	}
	if equality.Semantic.DeepEqual(lists[0], lists[1]) {
		return nil
	}
	return fmt.Errorf("%s differs\n%s", path, difference(lists[0], lists[1]))
}

// difference shows both from where they begin to differ.
func difference(binary, plain runtime.Object) string {
	first, _ := json.Marshal(binary)
	second, _ := json.Marshal(plain)
	at := 0
	for at < min(len(first), len(second)) && first[at] == second[at] {
		at++
	}
	from := max(0, at-200)
	shown := func(text []byte) []byte { return text[from:min(len(text), at+100)] }
	return fmt.Sprintf("protobuf: %s\njson:     %s", shown(first), shown(second))
}

func refusedMedia(ctx context.Context, env *env) error {
	client := env.json.CoreV1().RESTClient()
	path := "/api/v1/namespaces/" + env.namespace + "/configmaps"
	table := client.Get().AbsPath(path).SetHeader("Accept", protobufType+";as=Table;v=v1;g=meta.k8s.io").Do(ctx).Error()
	html := client.Get().AbsPath(path).SetHeader("Accept", "text/html").Do(ctx).Error()
	body := client.Post().AbsPath(path).SetHeader("Content-Type", "text/plain").Body([]byte("x")).Do(ctx).Error()
	code := func(err error) int {
		var status apierrors.APIStatus
		if errors.As(err, &status) {
			return int(status.Status().Code)
		}
		return 0
	}
	return errors.Join(
		expect(code(table) == http.StatusNotAcceptable, "Table as protobuf: %v", table),
		expect(code(html) == http.StatusNotAcceptable, "text/html: %v", html),
		expect(code(body) == http.StatusUnsupportedMediaType, "text/plain body: %v", body),
	)
}

func compression(ctx context.Context, env *env) error {
	configMaps := env.traced.CoreV1().ConfigMaps(env.namespace)
	text := strings.Repeat("0123456789", 10_000)
	for _, name := range []string{"a", "b"} {
		if _, err := configMaps.Create(ctx, configMap(name, map[string]string{"k": text}), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	get := func(path string) (encoding string, length int, err error) {
		env.trace.take()
		// Asking by hand keeps the transport from unpacking what it did not ask for.
		request := env.traced.CoreV1().RESTClient().Get().AbsPath(path).SetHeader("Accept-Encoding", "gzip")
		body, err := request.DoRaw(ctx)
		seen := env.trace.take()
		return seen[len(seen)-1].encoding, len(body), err
	}
	path := "/api/v1/namespaces/" + env.namespace + "/configmaps"
	large, size, err := get(path)
	small, _, failed := get(path + "/none-at-all")
	if apierrors.IsNotFound(failed) {
		failed = nil
	}
	list, listed := configMaps.List(ctx, metav1.ListOptions{LabelSelector: "app=compat"})
	return errors.Join(err, failed, listed,
		expect(large == "gzip" && size < len(text), "a list of 200 KB came with encoding %q, %d bytes", large, size),
		expect(small == "", "a small answer came with encoding %q", small),
		expect(list != nil && len(list.Items) == 2 && list.Items[0].Data["k"] == text, "the compressed list reads differently"),
	)
}
