package torture

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
)

// A rollingSite is two Caddies with hubs, the nodes, and a third one before them
// that balances the load.
type rollingSite struct {
	t        *testing.T
	nodes    [2]*rollingNode
	balancer string // its base URL
	client   *http.Client
}

// A rollingNode is a Caddy with a hub, or several that follow one another.
type rollingNode struct {
	t       *testing.T
	name    string // is the path at the balancer that leads to this node alone
	port    int
	broker  string
	process *caddytest.Process
}

// newRollingSite starts the balancer, before any node. RECORD in the broker is a
// file, of each node its own or the same.
func newRollingSite(t *testing.T, broker string, whose record) *rollingSite {
	// The balancer holds requests back while there is no node, for longer than polls may.
	s := &rollingSite{t: t, client: &http.Client{Transport: newClients(t).post.Transport, Timeout: time.Second}}
	dir := filepath.ToSlash(t.TempDir())
	for i, name := range []string{"a", "b"} {
		file := dir + "/" + name
		if whose != eachItsOwn {
			file = dir + "/both"
		}
		s.nodes[i] = &rollingNode{t: t, name: name, port: caddytest.FreePort(t), broker: strings.ReplaceAll(broker, recordFile, file)}
	}
	port := caddytest.FreePort(t)
	s.balancer = fmt.Sprintf("http://127.0.0.1:%d", port)
	caddytest.Run(t, s.caddyfile(port)).WaitServing(t, s.balancer)
	return s
}

// caddyfile is the balancer's. What it retries are streams: one that a node
// which stops does not take is opened at the other, and waits if there is none. HTTP/2
// to a node is there because the hub has other writers for it.
func (s *rollingSite) caddyfile(port int) string {
	a, b := s.nodes[0], s.nodes[1]
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
}

(balance) {
	reverse_proxy {args[:]} {
		lb_policy round_robin
		lb_try_duration 60s
		lb_try_interval 50ms
		lb_retry_match expression `+"`{rp.is_transport_error} == true && method('GET')`"+`
		lb_retry_match expression `+"`{rp.status_code} == 503 && method('GET')`"+`
		health_uri /sse/health
		health_headers {
			Authorization "Bearer secret"
		}
		health_interval 100ms
	}
}

http://127.0.0.1:%d {
	handle / {
		respond "the balancer"
	}
	handle_path /a/* {
		import balance 127.0.0.1:%[2]d
	}
	handle_path /b/* {
		import balance h2c://127.0.0.1:%[3]d
	}
	handle {
		import balance 127.0.0.1:%[2]d 127.0.0.1:%[3]d
	}
}
`, port, a.port, b.port)
}

// caddyfile is that of a node: overload 503 is what tells the balancer to try the other.
// Pages come back soon, so that some do while their node drains.
func (n *rollingNode) caddyfile() string {
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
		broker %s
		history 1000000 1h
	}
}

http://127.0.0.1:%d {
	sse /events {
		allow *
		retry 10ms
		keepalive 200ms
		overload 503
		limits {
			replay 1000000
		}
	}
	sse_api /sse* {
		token secret
	}
	respond /node %s
}
`, n.broker, n.port, n.name)
}

func (n *rollingNode) address() string { return fmt.Sprintf("http://127.0.0.1:%d", n.port) }

// launch starts the node without waiting for it.
func (n *rollingNode) launch() {
	n.t.Helper()
	n.process = caddytest.Run(n.t, n.caddyfile())
}

// terminate asks the node to stop, as a supervisor does.
func (n *rollingNode) terminate() {
	n.t.Helper()
	if err := n.process.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
}

func (n *rollingNode) awaitExit() {
	n.t.Helper()
	if err := n.process.Wait(patience); err != nil {
		n.t.Fatalf("node %s: stop: %s", n.name, err)
	}
}

// expectLocked waits until the node has ended because another has its record.
func (n *rollingNode) expectLocked() {
	n.t.Helper()
	if err := n.process.Wait(patience); err == nil || !n.foundLocked() {
		n.t.Fatalf("node %s, whose record another has open: %v", n.name, err)
	}
}

func (n *rollingNode) foundLocked() bool {
	return strings.Contains(n.process.Output.String(), "is locked: another process")
}

// supervise waits until the balancer sends requests to a node that was launched. It
// is started again while another has its record, as often as it takes.
func (s *rollingSite) supervise(n *rollingNode) {
	s.t.Helper()
	eventually(s.t, "node "+n.name+" gets requests", func() bool {
		if !n.process.Running() {
			if !n.foundLocked() {
				s.t.Fatalf("node %s ended", n.name)
			}
			n.launch()
		}
		return s.get("/node") == n.name
	})
}

func (s *rollingSite) get(path string) string {
	resp, err := s.client.Get(s.balancer + path)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// eventually polls what nobody tells, until it is so or the test has failed anyhow.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !happened() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %s until %s", patience, what)
		}
		if t.Failed() {
			t.Fatalf("gave up waiting until %s", what)
		}
	}
}
