package torture

import (
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// TestRedis holds promises 1 and 2 for two nodes behind a load balancer that share a
// record in Redis, while publishers publish to any of them: what is published to one
// reaches the pages of both, no page gives up, and none misses an event unless a reset
// says so. There is a reset only if Redis lost the record.
func TestRedis(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGTERM")
	}
	t.Run("node after node is restarted", func(t *testing.T) {
		r := newRolling(t, "redis "+redistest.Start(t).URL(), shared, ssetest.HistoryOptions{KeepsAll: true, Durable: true})
		r.roll()
		r.finish(1)
		r.expectAllResets(false)
	})
	t.Run("Redis is silent", func(t *testing.T) {
		server := redistest.Start(t)
		r := newRolling(t, briefly(server.URL(), ""), shared, ssetest.HistoryOptions{KeepsAll: true, Durable: true})
		server.Suspend()
		r.expectAway("does not answer within 1s")
		server.Resume()
		r.awaitHealthy()
		r.awaitEvents(r.staying())
		r.finish(1)
		r.expectAllResets(false)
	})
	t.Run("Redis is killed and has lost nothing", func(t *testing.T) {
		server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
		r := newRolling(t, briefly(server.URL(), "after_restart go_on"), shared, ssetest.HistoryOptions{KeepsAll: true, Durable: true})
		server.Kill()
		r.expectAway("redis")
		server.Restart()
		r.awaitHealthy()
		r.awaitEvents(r.staying())
		r.finish(1)
		r.expectAllResets(false)
	})
	t.Run("Redis is killed and has lost all", func(t *testing.T) {
		server := redistest.Start(t)
		r := newRolling(t, briefly(server.URL(), ""), shared, ssetest.HistoryOptions{KeepsAll: true})
		server.Kill()
		r.expectAway("redis")
		server.Restart()
		r.await("every page is reset", r.staying(), func(_ *page, v pageView) bool { return len(v.resets) > 0 })
		r.awaitHealthy()
		r.awaitEvents(r.staying())
		r.finish(2)
		r.expectAllResets(true)
	})
	t.Run("Redis comes after the nodes", func(t *testing.T) {
		server := redistest.Start(t)
		server.Stop()
		r := prepareRolling(t, briefly(server.URL(), ""), shared, ssetest.HistoryOptions{KeepsAll: true, Durable: true})
		for _, n := range r.site.nodes {
			n.launch()
			n.process.WaitServing(t, n.address())
			if got := r.body(n.address() + "/node"); got != n.name {
				t.Errorf("the rest of node %s answers %q", n.name, got)
			}
		}
		r.expectAway(server.Socket)
		server.Restart()
		r.use(shared)
		r.finish(1)
		r.expectAllResets(false)
	})
}

// briefly is the broker that waits for a silent Redis no longer than a test likes to.
func briefly(url, settings string) string {
	return "redis " + url + " {\n timeout 1s\n " + settings + "\n }"
}

// staying returns the pages that are not left.
func (r *rolling) staying() (found []*page) {
	for _, p := range r.pages {
		if p.back == nil {
			found = append(found, p)
		}
	}
	return found
}

// expectAway holds what happens while Redis is away, for reasons of which this is a part:
// each node says so, refuses what is published, and keeps its streams.
func (r *rolling) expectAway(why string) {
	r.t.Helper()
	for _, n := range r.site.nodes {
		eventually(r.t, "node "+n.name+" says that Redis is away", func() bool {
			status, body := r.ask(http.MethodGet, n.address()+"/sse/health", "")
			return status == http.StatusServiceUnavailable && strings.Contains(body, why)
		})
		if status, body := r.ask(http.MethodPost, n.address()+"/sse/publish/elsewhere", "lost"); status != http.StatusServiceUnavailable {
			r.t.Errorf("node %s answers a publish with %d %s", n.name, status, body)
		}
	}
	before := make(map[*page]pageView)
	for _, p := range r.staying() {
		before[p] = p.look()
	}
	r.await("every page gets keepalives", r.staying(), func(p *page, v pageView) bool { return v.beats >= before[p].beats+3 })
	for _, p := range r.staying() {
		if v := p.look(); v.opens != before[p].opens {
			r.t.Errorf("page %s was opened anew while Redis was away: %+v", p.name, v)
		}
	}
}

func (r *rolling) awaitHealthy() {
	r.t.Helper()
	for _, n := range r.site.nodes {
		eventually(r.t, "node "+n.name+" is healthy", func() bool {
			status, _ := r.ask(http.MethodGet, n.address()+"/sse/health", "")
			return status == http.StatusOK
		})
	}
}

// ask returns an answer of a node. Zero is none.
func (r *rolling) ask(method, address, body string) (status int, answer string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.ctx, method, address, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer secret")
	resp, err := r.site.client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

func (r *rolling) body(address string) string {
	r.t.Helper()
	_, body := r.ask(http.MethodGet, address, "")
	return body
}

func (r *rolling) expectAllResets(want bool) {
	r.t.Helper()
	for _, p := range r.pages {
		r.expectResets(p, want)
	}
}
