package caddymodule_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A streamLine is what a line of the access log has of a stream.
type streamLine struct {
	Request struct {
		URI      string      `json:"uri"`
		Proto    string      `json:"proto"`
		ClientIP string      `json:"client_ip"`
		Headers  http.Header `json:"headers"`
	} `json:"request"`
	Status   int         `json:"status"`
	Size     int         `json:"size"`
	Duration float64     `json:"duration"`
	Headers  http.Header `json:"resp_headers"`
	SSE      struct {
		Reason string `json:"reason"`
		Events int    `json:"events"`
	} `json:"sse"`
	Mark string `json:"mark"`
}

// TestStreamLine promises one line of the access log for a stream, when it has
// ended, with its bytes and its duration and all else that Caddy tells of a
// request; and that it goes to the log of the configuration that is in force then.
func TestStreamLine(t *testing.T) {
	dir := t.TempDir()
	site := func(file string) string {
		return "log {\n\t\toutput file " + filepath.Join(dir, file) + "\n\t\tformat json\n\t}\n\tsse /events* {\n\t\tallow *\n\t}"
	}
	lines := func(file string) []string {
		content, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(content)), "\n")
	}
	l := loadLab(t, "", site("first"))
	s, _ := l.open("?channel=a", "User-Agent: tester", "Cookie: secret=1")
	l.publish("a", "x")
	expectData(t, s, "x")
	l.load("", site("second"))
	l.publish("a", "y")
	expectData(t, s, "y")
	if got := lines("first"); len(got) != 1 || got[0] != "" {
		t.Errorf("while the stream is open, its line is there: %q", got)
	}
	s.Close()
	eventually(t, "the line is written", func() bool { return lines("second")[0] != "" })
	var line streamLine
	if err := json.Unmarshal([]byte(lines("second")[0]), &line); err != nil || len(lines("second")) != 1 {
		t.Fatalf("%v: %q", err, lines("second"))
	}
	r := line.Request
	if line.Status != 200 || line.SSE.Events != 2 || line.SSE.Reason != "client" || line.Size < 150 || line.Duration <= 0 {
		t.Errorf("the line says %+v", line)
	}
	if r.URI != "/events?channel=a" || r.Proto != "HTTP/1.1" || r.ClientIP != "127.0.0.1" || r.Headers.Get("User-Agent") != "tester" {
		t.Errorf("the request is %+v", r)
	}
	if got := r.Headers.Get("Cookie"); got != "REDACTED" {
		t.Errorf("the cookie is %q, want what Caddy has in its place", got)
	}
	if got := line.Headers.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("the answer's media type is %q", got)
	}
}
