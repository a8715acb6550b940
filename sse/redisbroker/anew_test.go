package redisbroker_test

import (
	"context"
	"errors"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/redisbroker"
)

// unaware is a broker that has not found out that the record has begun anew.
type unaware struct{ *redisbroker.Broker }

func (b unaware) Tail(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
	err := b.Broker.Tail(ctx, after, deliver)
	if errors.Is(err, sse.ErrGone) {
		<-ctx.Done()
	}
	return err
}

// TestNotExpiredButAnew: a client came back, just after the record had begun anew, to a node
// that had not found out. Its position was no longer in memory, and of the record the node was
// told that it was gone. So the client was reset as if its events had expired, and once more
// when the node found out.
func TestNotExpiredButAnew(t *testing.T) {
	s := redistest.Start(t)
	b, err := redisbroker.Open(redisbroker.Options{URL: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	h, err := sse.NewHub(t.Context(), unaware{b}, sse.Options{HistoryCount: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Close()
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	first := publishTo(t, h)
	publishTo(t, h)
	comeBack(t, h, publishTo(t, h)) // the hub has them all
	s.Do("FLUSHALL")
	publishTo(t, startHub(t, s.URL()))
	expectTurnedAway(t, h, first)
}
