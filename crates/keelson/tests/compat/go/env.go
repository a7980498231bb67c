package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const protobufType = "application/vnd.kubernetes.protobuf"

// What all checks share.
type clients struct {
	config *rest.Config
	json   *kubernetes.Clientset
}

// What one check works with.
type env struct {
	*clients
	namespace string
	// Everything that went over the wire through traced configurations.
	trace *trace
	// Answers in nothing but protobuf.
	proto     *kubernetes.Clientset
	traced    *kubernetes.Clientset
	dynamic   dynamic.Interface
	metadata  metadata.Interface
	discovery discovery.DiscoveryInterface
}

func connect(kubeconfig string) (*clients, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.UserAgent = "compat/1.0"
	config.ContentType = "application/json"
	config.AcceptContentTypes = "application/json"
	json, err := kubernetes.NewForConfig(config)
	return &clients{config, json}, err
}

func (c *clients) env(ctx context.Context, number int) (*env, error) {
	env := &env{clients: c, namespace: fmt.Sprintf("compat-%d", number), trace: &trace{}}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: env.namespace}}
	if _, err := c.json.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("create the check's namespace: %w", err)
	}
	// Pods are refused before their account is there.
	err := until(ctx, "the default service account", func() error {
		_, err := c.json.CoreV1().ServiceAccounts(env.namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	traced := rest.CopyConfig(c.config)
	traced.Wrap(env.trace.wrap)
	proto := rest.CopyConfig(traced)
	proto.ContentType = protobufType
	proto.AcceptContentTypes = protobufType
	var failed [5]error
	env.traced, failed[0] = kubernetes.NewForConfig(traced)
	env.proto, failed[1] = kubernetes.NewForConfig(proto)
	env.dynamic, failed[2] = dynamic.NewForConfig(c.config)
	env.metadata, failed[3] = metadata.NewForConfig(traced)
	env.discovery, failed[4] = discovery.NewDiscoveryClientForConfig(c.config)
	return env, errors.Join(failed[:]...)
}

// One exchange, as far as checks look at it.
type exchange struct {
	method, path, query, contentType, encoding string
	code                                       int
	warnings                                   []string
}

type trace struct {
	sync.Mutex
	seen []exchange
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

func (t *trace) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		if err == nil {
			t.Lock()
			defer t.Unlock()
			t.seen = append(t.seen, exchange{
				method: request.Method, path: request.URL.Path, query: request.URL.RawQuery, code: response.StatusCode,
				contentType: response.Header.Get("Content-Type"), encoding: response.Header.Get("Content-Encoding"),
				warnings: response.Header.Values("Warning"),
			})
		}
		return response, err
	})
}

func (t *trace) take() []exchange {
	t.Lock()
	defer t.Unlock()
	seen := t.seen
	t.seen = nil
	return seen
}

// allProtobuf says which answer was in another form.
func (t *trace) allProtobuf() error {
	for _, e := range t.take() {
		if !strings.HasPrefix(e.contentType, protobufType) {
			return fmt.Errorf("%s %s answered %d in %q", e.method, e.path, e.code, e.contentType)
		}
	}
	return nil
}

// until asks again and again; what was wrong last is the error.
func until(ctx context.Context, what string, ask func() error) error {
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// next takes an event and holds it against what should come.
func next(ctx context.Context, from watch.Interface, kind watch.EventType, name string) (watch.Event, error) {
	select {
	case <-ctx.Done():
		return watch.Event{}, fmt.Errorf("no event, expected %s %s", kind, name)
	case event, open := <-from.ResultChan():
		if !open {
			return event, fmt.Errorf("watch ended, expected %s %s", kind, name)
		}
		object, _ := event.Object.(metav1.Object)
		if event.Type != kind || object == nil || object.GetName() != name {
			return event, fmt.Errorf("got %s %v, expected %s %s", event.Type, event.Object, kind, name)
		}
		return event, nil
	}
}

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "compat"}},
		Data:       data,
	}
}

func pod(name string) *corev1.Pod {
	grace := int64(0)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "compat"}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			Containers:                    []corev1.Container{{Name: "main", Image: "busybox:1"}},
		},
	}
}

func expect(ok bool, format string, arguments ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, arguments...)
}
