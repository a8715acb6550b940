package caddymodule_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A program is a client in another language, seen by the lines that it writes.
type program struct {
	t     testing.TB
	name  string
	lines chan string
	seen  []string
}

// start runs a client until the test ends.
func start(t testing.TB, name string, args ...string) *program {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if _, err := cmd.StdinPipe(); err != nil { // open until the end
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s is needed by the tests: %s", name, err)
	}
	p := &program{t: t, name: name, lines: make(chan string, 1000)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(p.lines)
		scanner := bufio.NewScanner(stdout)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			p.lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("%s wrote: %s", name, &stderr)
		}
	})
	return p
}

// line returns the next line.
func (p *program) line() string {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			p.t.Fatalf("%s ended; it printed %q", p.name, p.seen)
		}
		p.seen = append(p.seen, line)
		return line
	case <-time.After(patience):
		p.t.Fatalf("%s prints nothing more than %q", p.name, p.seen)
	}
	return ""
}

// frame returns the lines up to an empty one.
func (p *program) frame() string {
	p.t.Helper()
	var frame strings.Builder
	for line := p.line(); line != ""; line = p.line() {
		frame.WriteString(line + "\n")
	}
	return frame.String()
}

func (p *program) expectFrame(want string) {
	p.t.Helper()
	if got := p.frame(); got != want {
		p.t.Errorf("%s printed %q, want %q", p.name, got, want)
	}
}

// TestCurl holds the promise that curl is enough to watch a stream, over the
// HTTP versions that it speaks.
func TestCurl(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.caddyfile("", "encode\n"+newsRoute))
	for _, tt := range []struct {
		name string
		wire wire
		args []string
	}{
		{"http1", wires[0], nil},
		{"http1 compressed", wires[0], []string{"--compressed"}},
		{"http1-tls", wires[1], []string{"--insecure", "--http1.1"}},
		{"http2", wires[2], []string{"--insecure", "--http2"}},
		{"http2-cleartext", wires[3], []string{"--http2-prior-knowledge"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			curl := start(t, "curl", append(tt.args, "--silent", "--show-error", "--no-buffer", site.url(tt.wire, newsEvents))...)
			if o := parseOpen(t, curl.frame()); o.Resume != "fresh" {
				t.Errorf("curl's stream opens with %+v, want fresh", o)
			}
			for _, want := range site.publishAwkward(t, "news") {
				curl.expectFrame(want)
			}
		})
	}
	site.awaitStreams(t, 0)
}

// TestNodeFetch holds the promise that a client which reads the bytes itself
// gets each frame when it is sent.
func TestNodeFetch(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.caddyfile("", "encode\n"+newsRoute))
	node := start(t, "node", "testdata/node-fetch.mjs", site.url(wires[0], newsEvents))
	if line := node.line(); line != "status: 200" {
		t.Fatalf("fetch: %s", line)
	}
	first := node.frame()
	if o := parseOpen(t, first); o.Resume != "fresh" {
		t.Errorf("the stream opens with %+v, want fresh", o)
	}
	sent := site.publishAwkward(t, "news")
	for _, want := range sent {
		node.expectFrame(want)
	}

	again := start(t, "node", "testdata/node-fetch.mjs", site.url(wires[0], newsEvents), field(first, "id"))
	again.line()
	if o := parseOpen(t, again.frame()); o.Resume != "complete" {
		t.Errorf("the stream with a Last-Event-ID opens with %+v, want complete", o)
	}
	for _, want := range sent {
		again.expectFrame(want)
	}
}

// A fired event is a line of node-eventsource.mjs.
type fired struct {
	Type        string `json:"type"`
	Data        string `json:"data"`
	LastEventID string `json:"lastEventId"`
	ReadyState  int    `json:"readyState"`
}

func (p *program) fired() (f fired) {
	p.t.Helper()
	line := p.line()
	if err := json.Unmarshal([]byte(line), &f); err != nil {
		p.t.Fatalf("%s printed %q: %s", p.name, line, err)
	}
	return f
}

func (p *program) expectFired(want ...fired) {
	p.t.Helper()
	for _, w := range want {
		if got := p.fired(); got != w {
			p.t.Errorf("%s fired %+v, want %+v", p.name, got, w)
		}
	}
}

func (p *program) expectOpen(resume string) {
	p.t.Helper()
	f := p.fired()
	var o opening
	if f.Type != "hub:open" || json.Unmarshal([]byte(f.Data), &o) != nil || o.Resume != resume {
		p.t.Errorf("%s fired %+v, want hub:open with resume %s", p.name, f, resume)
	}
}

// TestNodeEventSource holds the promises of section 1 for an EventSource that
// is not a browser's: names, ids, and a reconnect of its own accord, after the
// server ended the stream, that loses and doubles nothing.
func TestNodeEventSource(t *testing.T) {
	if out, err := exec.Command("node", "--experimental-eventsource", "--eval", "new EventSource('http://127.0.0.1:1/').close()").CombinedOutput(); err != nil {
		t.Skipf("this Node has no EventSource, which came with 20.18 (Debian 12 has 18): %s", out)
	}
	site := newHubSite(t)
	route := func(elsewhere int) string {
		return fmt.Sprintf("@events path /events* /%d\n sse @events {\n allow news*\n retry 50ms\n }", elsewhere)
	}
	site.load(t, site.caddyfile("", route(-1)))
	node := start(t, "node", "--no-warnings", "--experimental-eventsource", "testdata/node-eventsource.mjs",
		site.url(wires[0], newsEvents), "hub:open", "hub:close", "stock")
	node.expectFired(fired{Type: "open"})
	node.expectOpen("fresh")
	id := site.publish(t, "news", "", "a\nb")
	node.expectFired(fired{Type: "onmessage", Data: "a\nb", LastEventID: id})
	id = site.publish(t, "news", "stock", "{}")
	node.expectFired(fired{Type: "stock", Data: "{}", LastEventID: id})

	for i := range 3 {
		// Another route: the stream is ended.
		site.load(t, site.caddyfile("", route(i)))
		node.expectFired(
			fired{Type: "hub:close", Data: `{"reason":"drain"}`, LastEventID: id},
			fired{Type: "error", ReadyState: 0})
		missed := fmt.Sprintf("missed %d", i)
		id = site.publish(t, "news", "", missed)
		node.expectFired(fired{Type: "open"})
		// It is back before the event was published, or after.
		node.expectOpen("complete")
		node.expectFired(fired{Type: "onmessage", Data: missed, LastEventID: id})
		live := fmt.Sprintf("live %d", i)
		id = site.publish(t, "news", "", live)
		node.expectFired(fired{Type: "onmessage", Data: live, LastEventID: id})
	}
}
