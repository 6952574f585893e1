//go:build peers

// Package metallb names the programs that the benches run beside ours; it has nothing of its own. They are built from
// their Go module, unchanged: `cargo xtask bench kube --with-peers`.
package metallb

import (
	_ "go.universe.tf/metallb/controller"
	_ "go.universe.tf/metallb/speaker"
)
