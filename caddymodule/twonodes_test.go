package caddymodule_test

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// twoNodes is examples/two-nodes on other ports.
type twoNodes struct {
	*lab
	redis    *redistest.Server
	ports    *strings.Replacer
	balancer string // base URLs
	node     [2]string
	process  [2]*caddytest.Process
}

func runTwoNodes(t *testing.T) *twoNodes {
	t.Helper()
	s := &twoNodes{lab: newLab(t), redis: redistest.StartTCP(t)}
	t.Setenv("REDIS_URL", "redis://"+s.redis.Address())
	t.Setenv("SSE_TOKEN", "secret")
	replace := []string{"lb_try_duration 30s", "lb_try_duration 1s"} // nobody likes to wait for it
	var free [4]int
	for i, port := range []string{":8080", ":8081", ":8082", ":9090"} {
		free[i] = caddytest.FreePort(t)
		replace = append(replace, port, fmt.Sprintf(":%d", free[i]))
	}
	s.ports = strings.NewReplacer(replace...)
	s.balancer = fmt.Sprintf("http://localhost:%d", free[0])
	for i := range s.node {
		s.node[i] = fmt.Sprintf("http://127.0.0.1:%d", free[1+i])
		t.Setenv("PORT", fmt.Sprint(free[1+i]))
		t.Setenv("ADMIN", fmt.Sprintf("localhost:%d", caddytest.FreePort(t)))
		s.process[i] = caddytest.Run(t, s.file("node.caddyfile"))
	}
	caddytest.Run(t, s.file("balancer.caddyfile")).WaitServing(t, s.balancer)
	for i, node := range s.node {
		s.process[i].WaitServing(t, node)
	}
	for range 2 * len(s.node) { // whom it asks in turn
		eventually(t, "the balancer sends requests to the nodes", func() bool {
			r := s.do("GET", s.ports.Replace("http://localhost:9090/sse/health"), "", "Authorization: Bearer secret")
			return r.StatusCode == http.StatusOK
		})
	}
	return s
}

func (s *twoNodes) file(name string) string {
	s.t.Helper()
	text, err := os.ReadFile("../examples/two-nodes/" + name)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.ports.Replace(string(text))
}

// stream opens one and returns how it began.
func (s *twoNodes) stream(base, lastID string) (*ssetest.Stream, string) {
	s.t.Helper()
	header := make(http.Header)
	if lastID != "" {
		header.Set("Last-Event-ID", lastID)
	}
	stream := ssetest.Open(s.t, s.client, base+"/events?channel=news", header)
	return stream, readOpen(s.t, stream).Resume
}

func (s *twoNodes) publishTo(base, data string) {
	s.t.Helper()
	s.do("POST", base+"/sse/publish/news", data, "Authorization: Bearer secret").into(s.t, new(receipt))
}

func (s *twoNodes) streams(base string) int {
	s.t.Helper()
	var n numbersReply
	s.do("GET", base+"/sse", "", "Authorization: Bearer secret").into(s.t, &n)
	return n.Streams
}

// TestTwoNodes holds what the example says: what is published to one node reaches the
// streams of both; a client that loses its node goes on at the other and misses nothing;
// and what its README has one type works.
func TestTwoNodes(t *testing.T) {
	s := runTwoNodes(t)
	a, b := s.node[0], s.node[1]
	onA, _ := s.stream(a, "")
	onB, _ := s.stream(b, "")
	for i, data := range []string{"one", "two"} {
		s.publishTo(s.node[i], data)
		expectData(t, onA, data)
		expectData(t, onB, data)
	}
	onA.Close()
	s.publishTo(a, "three")
	expectData(t, onB, "three")
	resumed, how := s.stream(b, onA.LastEventID())
	expectData(t, resumed, "three")
	if how != "complete" {
		t.Errorf("who came from the other node was told %q", how)
	}

	balanced, _ := s.stream(s.balancer, "")
	commands := regexp.MustCompile(`(?m)^curl -H .*/sse/publish/.*$`).FindAllString(s.file("README.md"), -1)
	for _, command := range commands {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(command, "curl", "curl --silent --show-error --fail", 1)).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		if got := balanced.Expect("message").Data; !strings.Contains(command, "'"+got+"'") {
			t.Errorf("%s: got %q", command, got)
		}
	}
	if len(commands) != 3 {
		t.Errorf("the README publishes %d times, want 3", len(commands))
	}

	onB.Close()
	resumed.Close()
	stopped := 0
	eventually(t, "one stream is left, on one node", func() bool {
		onA, onB := s.streams(a), s.streams(b)
		stopped = onB
		return onA+onB == 1
	})
	if err := s.process[stopped].Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	expectClosed(t, balanced, "drain")
	s.publishTo(s.node[1-stopped], "meanwhile")
	again, how := s.stream(s.balancer, balanced.LastEventID())
	expectData(t, again, "meanwhile")
	if how != "complete" {
		t.Errorf("who lost the node was told %q", how)
	}

	s.redis.Stop()
	eventually(t, "a new stream is told to come back", func() bool {
		r, err := s.client.Get(s.balancer + "/events?channel=news")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("got status %d with %q", r.StatusCode, r.Header.Get("Content-Type"))
		}
		first, err := bufio.NewReader(r.Body).ReadString('\n')
		return err == nil && first == "retry: 10000\n"
	})
}
