package redisbroker_test

import (
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse"
)

// TestAheadOfNode: a client that had an event from one node, and came back to another that
// had not heard of it yet, was answered as if there had never been such a position: it was
// reset to where that node was, and then got again what it had. A node that is behind
// tells it to come back, and never resets it to an older place, nor to an older record.
func TestAheadOfNode(t *testing.T) {
	s := redistest.Start(t)
	link := redistest.NewLink(t, s)
	ahead, behind := startHub(t, s.URL()), startHub(t, link.URL())
	comeBack(t, behind, publishTo(t, ahead)) // both follow the record

	link.Sever()
	had := publishTo(t, ahead)
	expectTurnedAway(t, behind, had)
	link.Heal()
	if sub := comeBack(t, behind, had); sub.Resume() != sse.ResumeComplete {
		t.Errorf("a node that has caught up resumes %s: %s", had, sub.Resume())
	}

	link.Sever()
	s.Do("FLUSHALL")
	other := startHub(t, s.URL())
	had = publishTo(t, other)
	expectTurnedAway(t, behind, had)
	if sub := comeBack(t, other, publishTo(t, other)); sub.Resume() != sse.ResumeComplete {
		t.Errorf("a node that is not behind resumes: %s", sub.Resume())
	}
	if sub := comeBack(t, other, sse.Position{Epoch: had.Epoch, Seq: 100}); sub.Resume() != sse.ResumeReset {
		t.Errorf("what never was a position is resumed: %s", sub.Resume())
	}
	link.Heal()
	expectTurnedAway(t, behind, had) // for good: another hub takes its place
}

func publishTo(t *testing.T, h *sse.Hub) sse.Position {
	t.Helper()
	receipts, err := h.Publish(t.Context(), sse.Event{Channels: []string{"a"}, Data: "x"})
	if err != nil {
		t.Fatal(err)
	}
	return receipts[0].Position
}

func expectTurnedAway(t *testing.T, h *sse.Hub, had sse.Position) {
	t.Helper()
	sub, err := h.Subscribe(t.Context(), sse.SubscribeOptions{Channels: []string{"a"}, Start: sse.After(had)})
	if err == nil {
		t.Fatalf("a node that has not heard of %s takes its client in: %s", had, sub.Resume())
	}
}

// comeBack subscribes as often as the client is told to come back.
func comeBack(t *testing.T, h *sse.Hub, had sse.Position) *sse.Subscriber {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		sub, err := h.Subscribe(t.Context(), sse.SubscribeOptions{Channels: []string{"a"}, Start: sse.After(had)})
		if err == nil {
			return sub
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
