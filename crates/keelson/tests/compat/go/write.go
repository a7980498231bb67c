package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

func applyWorks(ctx context.Context, env *env) error {
	configMaps := env.traced.CoreV1().ConfigMaps(env.namespace)
	want := func(key, value string) *applycore.ConfigMapApplyConfiguration {
		return applycore.ConfigMap("a", env.namespace).WithData(map[string]string{key: value})
	}
	mine, theirs := metav1.ApplyOptions{FieldManager: "mine"}, metav1.ApplyOptions{FieldManager: "theirs"}
	made, err := configMaps.Apply(ctx, want("k", "1"), mine)
	if err != nil {
		return err
	}
	again, err := configMaps.Apply(ctx, want("k", "1"), mine)
	if err != nil {
		return err
	}
	_, conflict := configMaps.Apply(ctx, want("k", "2"), theirs)
	theirs.Force = true
	forced, err := configMaps.Apply(ctx, want("k", "2"), theirs)
	if err != nil {
		return err
	}
	// A manager that applies nothing any more takes its fields with it.
	both, err := configMaps.Apply(ctx, want("own", "x"), mine)
	if err != nil {
		return err
	}
	without, err := configMaps.Apply(ctx, applycore.ConfigMap("a", env.namespace), mine)
	if err != nil {
		return err
	}
	extracted, err := applycore.ExtractConfigMap(forced, "theirs")
	if err != nil {
		return err
	}
	return errors.Join(
		expect(again.ResourceVersion == made.ResourceVersion, "an apply that changes nothing wrote %s after %s", again.ResourceVersion, made.ResourceVersion),
		expect(apierrors.IsConflict(conflict) && apierrors.HasStatusCause(conflict, metav1.CauseTypeFieldManagerConflict), "conflict: %v", conflict),
		expect(forced.Data["k"] == "2" && extracted.Data["k"] == "2", "forced %v, extracted %v", forced.Data, extracted.Data),
		expect(both.Data["own"] == "x" && both.Data["k"] == "2", "both: %v", both.Data),
		expect(without.Data["own"] == "" && without.Data["k"] == "2", "given up: %v", without.Data),
	)
}

func strictWorks(ctx context.Context, env *env) error {
	client := env.traced.CoreV1().RESTClient()
	path := "/api/v1/namespaces/" + env.namespace + "/configmaps"
	body := []byte(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"k":"1","k":"2"},"extra":true}`)
	strict := client.Post().AbsPath(path).Param("fieldValidation", "Strict").Body(body).Do(ctx).Error()
	env.trace.take()
	warned := client.Post().AbsPath(path).Param("fieldValidation", "Warn").Param("dryRun", "All").Body(body).Do(ctx).Error()
	seen := env.trace.take()
	_, stored := env.json.CoreV1().ConfigMaps(env.namespace).Get(ctx, "a", metav1.GetOptions{})
	text := fmt.Sprint(strict)
	return errors.Join(warned,
		expect(apierrors.IsBadRequest(strict) && strings.Contains(text, `unknown field "extra"`) && strings.Contains(text, `duplicate field "data.k"`), "strict: %v", strict),
		expect(len(seen[0].warnings) == 2, "warnings: %v", seen[0].warnings),
		expect(apierrors.IsNotFound(stored), "a dry run stored something: %v", stored),
	)
}

func leaderElection(ctx context.Context, env *env) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	led := make(chan string, 2)
	elect := func(ctx context.Context, identity string) {
		lock := &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Name: "lock", Namespace: env.namespace},
			Client:     env.proto.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		}
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: lock, ReleaseOnCancel: true,
			LeaseDuration: 8 * time.Second, RenewDeadline: 6 * time.Second, RetryPeriod: 200 * time.Millisecond,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { led <- identity }, OnStoppedLeading: func() {},
			},
		})
	}
	first, resign := context.WithCancel(ctx)
	defer resign()
	go elect(first, "a")
	if err := is(ctx, led, "a"); err != nil {
		return err
	}
	go elect(ctx, "b")
	lease, err := env.json.CoordinationV1().Leases(env.namespace).Get(ctx, "lock", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if holder := lease.Spec.HolderIdentity; holder == nil || *holder != "a" {
		return fmt.Errorf("the lease is held by %v", holder)
	}
	resign()
	return is(ctx, led, "b")
}

func is(ctx context.Context, from chan string, expected string) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("nobody leads, expected %s", expected)
	case got := <-from:
		return expect(got == expected, "%s leads, expected %s", got, expected)
	}
}

func evictionWorks(ctx context.Context, env *env) error {
	one := intstr.FromInt32(1)
	budget := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "b"},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "compat"}},
		},
	}
	budgets := env.proto.PolicyV1().PodDisruptionBudgets(env.namespace)
	if _, err := budgets.Create(ctx, budget, metav1.CreateOptions{}); err != nil {
		return err
	}
	pods := env.proto.CoreV1().Pods(env.namespace)
	if _, err := pods.Create(ctx, pod("p"), metav1.CreateOptions{}); err != nil {
		return err
	}
	err := until(ctx, "pod ready and budget seen", func() error {
		got, err := budgets.Get(ctx, "b", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return expect(got.Status.CurrentHealthy == 1 && got.Status.ObservedGeneration == got.Generation, "status is %v", got.Status)
	})
	if err != nil {
		return err
	}
	eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: env.namespace}}
	refused := pods.EvictV1(ctx, eviction)
	if err := budgets.Delete(ctx, "b", metav1.DeleteOptions{}); err != nil {
		return err
	}
	err = until(ctx, "eviction", func() error {
		err := pods.EvictV1(ctx, eviction)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
	return errors.Join(err,
		expect(apierrors.IsTooManyRequests(refused) && apierrors.HasStatusCause(refused, policyv1.DisruptionBudgetCause), "refusal: %v", refused),
		until(ctx, "evicted pod", func() error {
			_, err := pods.Get(ctx, "p", metav1.GetOptions{})
			return expect(apierrors.IsNotFound(err), "the pod is still there: %v", err)
		}),
	)
}

func scaleWorks(ctx context.Context, env *env) error {
	if _, err := env.json.AppsV1().Deployments(env.namespace).Create(ctx, deployment("web", 0), metav1.CreateOptions{}); err != nil {
		return err
	}
	cached := memory.NewMemCacheClient(env.discovery)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(cached)
	scales, err := scale.NewForConfig(env.config, mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(env.discovery))
	if err != nil {
		return err
	}
	kind := schema.GroupResource{Group: "apps", Resource: "deployments"}
	var got, updated *autoscalingv1.Scale
	// The deployment controller writes the status meanwhile.
	err = until(ctx, "update", func() error {
		if got, err = scales.Scales(env.namespace).Get(ctx, kind, "web", metav1.GetOptions{}); err != nil {
			return err
		}
		want := got.DeepCopy()
		want.Spec.Replicas = 1
		updated, err = scales.Scales(env.namespace).Update(ctx, kind, want, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	patched, err := scales.Scales(env.namespace).Patch(ctx, kind.WithVersion("v1"), "web", types.MergePatchType, []byte(`{"spec":{"replicas":2}}`), metav1.PatchOptions{})
	if err != nil {
		return err
	}
	typed, err := env.proto.AppsV1().Deployments(env.namespace).GetScale(ctx, "web", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("as protobuf: %w", err)
	}
	return errors.Join(
		expect(got.Status.Selector == "app=web", "selector is %q", got.Status.Selector),
		expect(updated.Spec.Replicas == 1 && patched.Spec.Replicas == 2 && typed.Spec.Replicas == 2, "replicas %d, %d and %d",
			updated.Spec.Replicas, patched.Spec.Replicas, typed.Spec.Replicas),
		env.trace.allProtobuf(),
	)
}

func reviewsWork(ctx context.Context, env *env) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}
	if _, err := env.proto.CoreV1().ServiceAccounts(env.namespace).Create(ctx, account, metav1.CreateOptions{}); err != nil {
		return err
	}
	hour := int64(3600)
	token, err := env.proto.CoreV1().ServiceAccounts(env.namespace).CreateToken(ctx, "robot",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hour}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	review, err := env.proto.AuthenticationV1().TokenReviews().Create(ctx,
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token.Status.Token}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("token review: %w", err)
	}
	attributes := &authorizationv1.ResourceAttributes{Namespace: env.namespace, Verb: "list", Resource: "pods"}
	own, err := env.proto.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx,
		&authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: attributes}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("self access review: %w", err)
	}
	name := "system:serviceaccount:" + env.namespace + ":robot"
	other, err := env.proto.AuthorizationV1().SubjectAccessReviews().Create(ctx,
		&authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: name, ResourceAttributes: attributes}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("access review: %w", err)
	}
	who, err := env.proto.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("self review: %w", err)
	}
	return errors.Join(
		expect(review.Status.Authenticated && review.Status.User.Username == name, "token review: %v", review.Status),
		expect(own.Status.Allowed && !other.Status.Allowed, "admin %v, robot %v", own.Status, other.Status),
		expect(who.Status.UserInfo.Username != "", "who: %v", who.Status),
		env.trace.allProtobuf(),
	)
}

func deletesWork(ctx context.Context, env *env) error {
	configMaps := env.proto.CoreV1().ConfigMaps(env.namespace)
	held := configMap("held", nil)
	held.Finalizers = []string{"keelson.test/hold"}
	made, err := configMaps.Create(ctx, held, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	wrong := types.UID("other")
	conflict := configMaps.Delete(ctx, "held", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &wrong}})
	err = configMaps.Delete(ctx, "held", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &made.UID}})
	if err != nil {
		return err
	}
	going, err := configMaps.Get(ctx, "held", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("a finalizer did not hold: %w", err)
	}
	going.Finalizers = nil
	if _, err := configMaps.Update(ctx, going, metav1.UpdateOptions{}); err != nil {
		return err
	}
	_, gone := configMaps.Get(ctx, "held", metav1.GetOptions{})
	for _, name := range []string{"a", "b"} {
		if _, err := configMaps.Create(ctx, configMap(name, nil), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	err = configMaps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=compat"})
	if err != nil {
		return err
	}
	left, err := configMaps.List(ctx, metav1.ListOptions{LabelSelector: "app=compat"})
	return errors.Join(err,
		expect(apierrors.IsConflict(conflict), "a wrong UID: %v", conflict),
		expect(going.DeletionTimestamp != nil, "no deletionTimestamp"),
		expect(apierrors.IsNotFound(gone), "after the finalizer went: %v", gone),
		expect(left != nil && len(left.Items) == 0, "the collection is still there"),
		env.trace.allProtobuf(),
	)
}

func eventsWork(ctx context.Context, env *env) error {
	_, err := env.proto.EventsV1().Events(env.namespace).Create(ctx, &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "e"}, EventTime: metav1.NowMicro(), Type: "Normal", Reason: "Tested", Action: "Test",
		Note: "a note", ReportingController: "keelson.test/compat", ReportingInstance: "one",
		Regarding: corev1.ObjectReference{Kind: "Pod", Namespace: env.namespace, Name: "p"},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	old, err := env.proto.CoreV1().Events(env.namespace).Get(ctx, "e", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("through the core group: %w", err)
	}
	list, err := env.proto.CoreV1().Events(env.namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=p"})
	if err != nil {
		return err
	}
	return errors.Join(
		expect(old.Message == "a note" && old.InvolvedObject.Name == "p", "core event: %v", old),
		expect(len(list.Items) == 1, "%d events of the pod", len(list.Items)),
		env.proto.EventsV1().Events(env.namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}),
		env.trace.allProtobuf(),
	)
}
