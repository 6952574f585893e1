// The control plane of the lab: etcd and the programs of Kubernetes in one file, each a sub-command.
//
//	openelb-kube etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kube-proxy|kubectl ARGUMENTS...
//
// They are the official modules, unchanged; one binary shares what they have in common and needs one link. Three
// more are the lab's own: wait-ready, heartbeat in the place of kubelet, and faults before the API server.
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// command makes a program's command run, and gives its exit status.
func command(program func() *cobra.Command) func() int {
	return func() int { return cli.Run(program()) }
}

// etcd ends the process by itself when it fails.
func etcd() int {
	etcdmain.Main(os.Args)
	return 0
}

var programs = map[string]func() int{
	"etcd":                    etcd,
	"kube-apiserver":          command(apiserver.NewAPIServerCommand),
	"kube-controller-manager": command(manager.NewControllerManagerCommand),
	"kube-scheduler":          command(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kube-proxy":              command(proxy.NewProxyCommand),
	"kubectl":                 command(kubectl.NewDefaultKubectlCommand),
	"faults":                  injectFaults,
	"heartbeat":               heartbeat,
	"wait-ready":              waitReady,
}

func main() {
	var name string
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	run, known := programs[name]
	if !known {
		var names []string
		for each := range programs {
			names = append(names, each)
		}
		slices.Sort(names)
		fmt.Fprintf(os.Stderr, "usage: %s %s ARGUMENTS...\n", os.Args[0], strings.Join(names, "|"))
		os.Exit(2)
	}
	os.Args = os.Args[1:]
	os.Exit(run())
}
