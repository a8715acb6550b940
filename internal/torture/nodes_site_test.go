package torture

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/internal/redistest"
)

// A clusterNode is a Caddy whose hub is in Redis, or several that follow one another, with
// a link of its own to Redis.
type clusterNode struct {
	t       *testing.T
	port    int
	link    *redistest.Link
	setting string // of the broker
	history string // what the hub has in memory
	process *caddytest.Process
}

// caddyfile has Redis count as away soon. Pages find a node that cannot reach Redis on
// their own, by being told to come back.
func (n *clusterNode) caddyfile() string {
	return fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	default_bind 127.0.0.1
	log {
		level ERROR
	}
	servers {
		protocols h1 h2c
	}
	sse {
		broker redis unix://%s {
			timeout 500ms
			max_events 10000000
			max_size 8GiB
			%s
		}
		%s
		drain 200ms
	}
}

http://127.0.0.1:%d {
	sse /events {
		allow *
		retry 50ms
		keepalive 200ms
		limits {
			replay 100000000
		}
	}
	sse_api /sse* {
		token secret
	}
}
`, n.link.Socket, n.setting, n.history, n.port)
}

func (n *clusterNode) address() string { return fmt.Sprintf("http://127.0.0.1:%d", n.port) }

// launch starts the node without waiting for it.
func (n *clusterNode) launch() {
	n.t.Helper()
	n.process = caddytest.Run(n.t, n.caddyfile())
}

func (n *clusterNode) signal(signal syscall.Signal) {
	n.t.Helper()
	if err := n.process.Process.Signal(signal); err != nil {
		n.t.Fatalf("node %d: %s: %s", n.port, signal, err)
	}
}

func (n *clusterNode) kill() {
	n.t.Helper()
	n.signal(syscall.SIGKILL)
	_ = n.process.Wait(patience) // the error is that it was killed
}

// terminate asks the node to stop, as a supervisor does, and waits until it has. It may
// not have served yet.
func (n *clusterNode) terminate() {
	n.t.Helper()
	n.signal(syscall.SIGTERM)
	_ = n.process.Wait(patience)
	if n.process.Running() {
		n.t.Errorf("node %d does not stop:\n%s", n.port, n.process.Output)
	}
}
