package caddymodule_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// TestTwoNodesControl holds that what is said of a stream reaches it by way of any node:
// its client's changes, what operators see, a kick; and that a client that comes back to
// the other node has what its stream was changed to, and one stream.
func TestTwoNodesControl(t *testing.T) {
	s := runTwoNodes(t)
	a, b := s.node[0], s.node[1]
	const token, id = "Authorization: Bearer secret", "6e9c0f1e-7a5b-4d3e-9b1a-0123456789ab"
	onA := ssetest.Open(t, s.client, a+"/events?channel=news&connection="+id, nil)
	readOpen(t, onA)
	s.publishTo(b, "one")
	expectData(t, onA, "one")

	var now struct{ Channels []string }
	s.do("POST", b+"/events?connection="+id, `{"subscribe":["more"]}`, "Content-Type: application/json").into(t, &now)
	if !slices.Equal(now.Channels, []string{"news", "more"}) {
		t.Errorf("the stream has %q", now.Channels)
	}
	onA.Expect("hub:channels")
	s.do("POST", b+"/events?connection=00000000-7a5b-4d3e-9b1a-0123456789ab", `{"subscribe":["more"]}`, "Content-Type: application/json").problem(t, 404)

	if r := s.do("GET", b+"/sse/connections?channel=more", "", token); strings.Count(r.body, id) != 1 {
		t.Errorf("the streams are %d %s", r.StatusCode, r.body)
	}
	if r := s.do("GET", b+"/sse/channels/more", "", token); !strings.Contains(r.body, `"subscribers":1`) {
		t.Errorf("the channel is %d %s", r.StatusCode, r.body)
	}

	onB := ssetest.Open(t, s.client, b+"/events?channel=news&connection="+id, http.Header{"Last-Event-Id": {onA.LastEventID()}})
	if how := readOpen(t, onB); how.Resume != "complete" || !slices.Equal(how.Channels, []string{"news", "more"}) {
		t.Errorf("who moved was told %+v", how)
	}
	expectClosed(t, onA, "replaced")

	var kicked struct{ Kicked int }
	s.do("DELETE", a+"/sse/connections/"+id, "", token).into(t, &kicked)
	if kicked.Kicked != 1 {
		t.Errorf("%d were kicked", kicked.Kicked)
	}
	expectClosed(t, onB, "kicked")
	s.do("DELETE", a+"/sse/connections/"+id, "", token).problem(t, 404)
}
