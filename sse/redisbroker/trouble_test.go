package redisbroker_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/redisbroker"
)

// TestTroubleIsToldOnce: a broken connection shows as "EOF" or "broken pipe" or "reset by
// peer", by chance, and each time that it was another than before a node wrote a line. So
// it wrote one for each publish, while there was nothing new to tell.
func TestTroubleIsToldOnce(t *testing.T) {
	link := redistest.NewLink(t, redistest.Start(t))
	var lines bytes.Buffer
	b, err := redisbroker.Open(redisbroker.Options{URL: link.URL(), Logger: slog.New(slog.NewTextHandler(&lines, nil))})
	if err != nil {
		t.Fatal(err)
	}
	link.Sever()
	for range 100 {
		if _, err := b.Publish(context.Background(), []sse.Event{{Channels: []string{"a"}}}); err == nil {
			t.Error("a publish is answered over a link that is severed")
		}
	}
	if err := b.Close(); err != nil { // nothing is written any more
		t.Fatal(err)
	}
	if n := strings.Count(lines.String(), "cannot publish"); n != 1 {
		t.Errorf("it was told %d times, want once:\n%s", n, lines.String())
	}
}
