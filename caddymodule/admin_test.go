package caddymodule_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/boltbroker"
)

// TestLinesAfterFailedReload: a configuration that failed left its admin endpoint
// behind, whose requests that stay open took themselves for ended: lines got 200
// and no answer until the next good reload, and a publisher that began anew with
// the first of them did so forever.
func TestLinesAfterFailedReload(t *testing.T) {
	l := loadLab(t, "", "sse /events* {\n\t\tallow *\n\t}")
	if err := l.tryLoad("", "sse /events* {\n\t\tallow *\n\t\thub nope\n\t}"); err == nil {
		t.Fatal("the configuration with a hub that there is not was taken")
	}
	p := openLines(t, http.DefaultClient, l.admin+"/sse/publish")
	p.receipt(`{"channel":"a","data":"x"}` + "\n")
	p.receipt(`{"channel":"a","data":"y"}` + "\n")
	if got := l.numbers("").Position.Seq; got != 2 {
		t.Errorf("the hub is at %d, want 2", got)
	}
}

// TestAdminWhileStarting: Caddy's admin endpoint is there before its apps are. While
// a record was opened, publishers and probes were told 404, there is no hub, and a
// publisher that took that for final gave up what it was about to publish.
func TestAdminWhileStarting(t *testing.T) {
	option, path := bolt(t, "")
	fillRecord(t, path)
	admin, site := caddytest.FreePort(t), caddytest.FreePort(t)
	process := caddytest.Run(t, fmt.Sprintf(`{
	admin 127.0.0.1:%d
	persist_config off
	auto_https off
	default_bind 127.0.0.1
	%s
}
http://127.0.0.1:%d {
	sse /events* {
		allow *
	}
}
`, admin, option, site))
	health := fmt.Sprintf("http://127.0.0.1:%d/sse/health", admin)
	for end := time.Now().Add(patience); ; {
		resp, err := http.Get(health)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
			if resp.StatusCode != http.StatusServiceUnavailable {
				t.Fatalf("while it starts, health is answered %s", resp.Status)
			}
			if resp.Header.Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
		}
		if time.Now().After(end) {
			t.Fatalf("it does not become healthy: %s", process.Output)
		}
	}
}

// fillRecord makes a record that takes a while to open.
func fillRecord(t *testing.T, path string) {
	t.Helper()
	broker, err := boltbroker.Open(path, boltbroker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	events := make([]sse.Event, 1000)
	for i := range events {
		events[i] = sse.Event{Channels: []string{"old"}, Data: "x"}
	}
	for range 60 {
		if _, err := broker.Publish(context.Background(), events); err != nil {
			t.Fatal(err)
		}
	}
}
