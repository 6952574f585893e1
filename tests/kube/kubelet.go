package main

import (
	"context"
	"fmt"
	"os"
	"time"

	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// How long one request may take: a node that is cut off tries again every second, as kubelet does.
const requestTimeout = time.Second

func client(kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.Timeout = requestTimeout
	return kubernetes.NewForConfig(config)
}

// waitReady KUBECONFIG ends as soon as the API server says that it is ready.
func waitReady() int {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: wait-ready KUBECONFIG")
		return 2
	}
	client, err := client(os.Args[1])
	for err == nil {
		ready := client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(context.Background()).Error()
		if ready == nil {
			return 0
		}
		time.Sleep(20 * time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// heartbeat KUBECONFIG NODE is the part of kubelet that a node's health depends on: it renews the node's Lease, and
// makes the node and its pods ready again after they were not.
func heartbeat() int {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: heartbeat KUBECONFIG NODE")
		return 2
	}
	client, err := client(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		if err := beat(context.Background(), client, os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		time.Sleep(time.Second)
	}
}

func beat(ctx context.Context, client *kubernetes.Clientset, name string) error {
	if err := renew(ctx, client, name); err != nil {
		return fmt.Errorf("cannot renew the Lease of %s: %w", name, err)
	}
	node, err := client.CoreV1().Nodes().Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return fmt.Errorf("cannot get %s: %w", name, err)
	}
	for i := range node.Status.Conditions {
		condition := &node.Status.Conditions[i]
		if condition.Type != core.NodeReady || condition.Status == core.ConditionTrue {
			continue
		}
		now := meta.Now()
		condition.Status, condition.Reason, condition.Message = core.ConditionTrue, "KubeletReady", ""
		condition.LastHeartbeatTime, condition.LastTransitionTime = now, now
		if _, err := client.CoreV1().Nodes().UpdateStatus(ctx, node, meta.UpdateOptions{}); err != nil {
			return fmt.Errorf("cannot make %s ready: %w", name, err)
		}
		return restorePods(ctx, client, name)
	}
	return nil
}

func renew(ctx context.Context, client *kubernetes.Clientset, name string) error {
	leases := client.CoordinationV1().Leases(core.NamespaceNodeLease)
	now := meta.NowMicro()
	lease, err := leases.Get(ctx, name, meta.GetOptions{})
	if errors.IsNotFound(err) {
		seconds := int32(40)
		lease := &coordination.Lease{
			ObjectMeta: meta.ObjectMeta{Name: name},
			Spec:       coordination.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: &now},
		}
		_, err = leases.Create(ctx, lease, meta.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	lease.Spec.RenewTime = &now
	_, err = leases.Update(ctx, lease, meta.UpdateOptions{})
	return err
}

// restorePods undoes what the node lifecycle controller did to the pods of a node that was away.
func restorePods(ctx context.Context, client *kubernetes.Clientset, node string) error {
	pods, err := client.CoreV1().Pods("").List(ctx, meta.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return fmt.Errorf("cannot list the pods of %s: %w", node, err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		for j := range pod.Status.Conditions {
			condition := &pod.Status.Conditions[j]
			if condition.Type == core.PodReady && condition.Status != core.ConditionTrue {
				condition.Status, condition.Reason, condition.Message = core.ConditionTrue, "", ""
				condition.LastTransitionTime = meta.Now()
				if _, err := client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, meta.UpdateOptions{}); err != nil {
					return fmt.Errorf("cannot make %s/%s ready: %w", pod.Namespace, pod.Name, err)
				}
			}
		}
	}
	return nil
}
