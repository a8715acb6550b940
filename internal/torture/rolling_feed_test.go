package torture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// feedPace is the time between two events of a publisher, and between two attempts
// to publish one.
const feedPace = 5 * time.Millisecond

// A feed publishes to one record without pause. Each event has an id, by which it is
// published again until it is known to be kept: a publisher that does less loses
// what it sends to a server that is not there.
type feed struct {
	t       *testing.T
	address func() string // of whom to publish to next
	history *ssetest.History
	client  *http.Client

	mu   sync.Mutex // guards what follows
	made int
	kept int
	last sse.Position
}

// progress returns how many events are acknowledged, and where the newest of them is.
func (f *feed) progress() (int, sse.Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kept, f.last
}

// run publishes until stopping is done.
func (f *feed) run(ctx, stopping context.Context) {
	pace := time.NewTicker(feedPace)
	defer pace.Stop()
	for n := 0; stopping.Err() == nil; n++ {
		f.publish(ctx, rollingChannels[n%len(rollingChannels)])
		select {
		case <-pace.C:
		case <-stopping.Done():
		}
	}
}

// publish returns when the event is acknowledged.
func (f *feed) publish(ctx context.Context, channels ...string) {
	f.mu.Lock()
	f.made++
	id := fmt.Sprintf("feed/%d", f.made)
	f.mu.Unlock()
	pub := f.history.NewPublication(sse.Event{Channels: channels, Data: "rolling"})
	pub.Event.ID = id
	pace := time.NewTicker(feedPace)
	defer pace.Stop()
	for {
		pub.Begin()
		at, err := f.post(ctx, &pub.Event)
		if err == nil {
			pub.Acknowledged(at)
			f.mu.Lock()
			defer f.mu.Unlock()
			f.kept++
			f.last = at
			return
		}
		if !errors.Is(err, errUnsure) {
			f.t.Errorf("publish: %s", err)
			return
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
	}
}

// errUnsure is that an event may have been kept, or not.
var errUnsure = errors.New("nobody knows whether it was kept")

func (f *feed) post(ctx context.Context, e *sse.Event) (sse.Position, error) {
	var receipt struct{ ID sse.Position }
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	body, err := json.Marshal(jsonEnvelope{Channels: e.Channels, Data: e.Data, ID: e.ID})
	if err != nil {
		return receipt.ID, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.address()+"/sse/publish", bytes.NewReader(body))
	if err != nil {
		return receipt.ID, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer secret")
	resp, err := f.client.Do(req)
	if err != nil {
		return receipt.ID, errUnsure
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil, resp.StatusCode == http.StatusBadGateway, resp.StatusCode == http.StatusServiceUnavailable:
		return receipt.ID, errUnsure
	case resp.StatusCode != http.StatusOK:
		return receipt.ID, fmt.Errorf("%s %s", resp.Status, answer)
	}
	return receipt.ID, json.Unmarshal(answer, &receipt)
}
