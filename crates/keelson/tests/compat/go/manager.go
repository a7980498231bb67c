package main

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const finalizer = "keelson.test/copies"

// copies keeps a Secret beside each ConfigMap with the label, and says so in a condition of its namespace.
type copies struct{ client.Client }

func (c copies) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var source corev1.ConfigMap
	if err := c.Get(ctx, request.NamespacedName, &source); err != nil || source.Labels["app"] != "compat" {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !source.DeletionTimestamp.IsZero() {
		if controllerutil.RemoveFinalizer(&source, finalizer) {
			return ctrl.Result{}, c.Update(ctx, &source)
		}
		return ctrl.Result{}, nil
	}
	if controllerutil.AddFinalizer(&source, finalizer) {
		if err := c.Update(ctx, &source); err != nil {
			return ctrl.Result{}, err
		}
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: source.Name, Namespace: source.Namespace}}
	_, err := controllerutil.CreateOrUpdate(ctx, c.Client, secret, func() error {
		secret.Data = map[string][]byte{"copy": []byte(source.Data["k"])}
		return controllerutil.SetControllerReference(&source, secret, c.Scheme())
	})
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, c.say(ctx, source.Namespace, source.Name)
}

func (c copies) say(ctx context.Context, namespace, name string) error {
	var budget corev1.Namespace
	if err := c.Get(ctx, client.ObjectKey{Name: namespace}, &budget); err != nil {
		return err
	}
	before := budget.DeepCopy()
	budget.Status.Conditions = []corev1.NamespaceCondition{{
		Type: "Copied", Status: corev1.ConditionTrue, Reason: "Copied", Message: name, LastTransitionTime: metav1.Now(),
	}}
	return c.Status().Patch(ctx, &budget, client.MergeFrom(before))
}

func managerWorks(ctx context.Context, env *env) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// What controller-runtime chooses by itself: protobuf for built-in kinds.
	config := rest.CopyConfig(env.config)
	config.ContentType, config.AcceptContentTypes = "", ""
	config.Wrap(env.trace.wrap)
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme.Scheme, Metrics: server.Options{BindAddress: "0"},
		Cache:          cache.Options{DefaultNamespaces: map[string]cache.Config{env.namespace: {}}},
		LeaderElection: true, LeaderElectionID: "copies", LeaderElectionNamespace: env.namespace, LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return err
	}
	err = ctrl.NewControllerManagedBy(manager).For(&corev1.ConfigMap{}).Owns(&corev1.Secret{}).Complete(copies{manager.GetClient()})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- manager.Start(ctx) }()
	configMaps := env.json.CoreV1().ConfigMaps(env.namespace)
	if _, err := configMaps.Create(ctx, configMap("a", map[string]string{"k": "v"}), metav1.CreateOptions{}); err != nil {
		return err
	}
	secrets := env.json.CoreV1().Secrets(env.namespace)
	err = until(ctx, "the copy", func() error {
		secret, err := secrets.Get(ctx, "a", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return expect(string(secret.Data["copy"]) == "v" && metav1.GetControllerOf(secret) != nil, "the copy is %v", secret)
	})
	if err != nil {
		return err
	}
	if err := secrets.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		return err
	}
	err = until(ctx, "the copy again", func() error { _, err := secrets.Get(ctx, "a", metav1.GetOptions{}); return err })
	if err != nil {
		return err
	}
	var listed corev1.ConfigMapList
	if err := manager.GetClient().List(ctx, &listed, client.MatchingLabels{"app": "compat"}); err != nil {
		return err
	}
	partial := &metav1.PartialObjectMetadata{}
	partial.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	if err := manager.GetClient().Get(ctx, client.ObjectKey{Namespace: env.namespace, Name: "a"}, partial); err != nil {
		return fmt.Errorf("only metadata: %w", err)
	}
	if err := configMaps.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		return err
	}
	err = until(ctx, "the finalizer", func() error {
		_, err := configMaps.Get(ctx, "a", metav1.GetOptions{})
		return expect(apierrors.IsNotFound(err), "the source is still there: %v", err)
	})
	cancel()
	if stopped := <-ended; stopped != nil {
		err = errors.Join(err, fmt.Errorf("manager: %w", stopped))
	}
	return errors.Join(err,
		expect(len(listed.Items) == 1, "the cache lists %d", len(listed.Items)),
	)
}
