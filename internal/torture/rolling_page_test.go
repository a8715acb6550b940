package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// A page is what an EventSource is, by section 9.2 of the HTML standard: it comes
// back after the time that it was told last, with the last id that it had, when a
// connection breaks or cannot be made, and gives up for good on an answer that is
// not 200.
type page struct {
	t        *testing.T
	name     string
	address  string
	channels []string
	client   *http.Client
	// next is the address of the next stream. It is nil for one that has a single address.
	next func() string
	// hurry is closed when the user reloads the page instead of waiting, as one does who
	// was told to come back in 5 to 15 seconds. Nil is never.
	hurry <-chan struct{}
	// breaks reports whether the connection breaks after a frame. Nil is never.
	breaks func() bool
	// back is closed when a page that is left after its first event is opened
	// again. It is nil for one that stays open.
	back <-chan struct{}

	seen   *ssetest.HistorySubscriber
	lastID string
	retry  time.Duration
	left   bool // once

	mu   sync.Mutex // guards view
	view pageView
}

// A pageView is what the test sees of a page while it is open.
type pageView struct {
	open   bool
	at     sse.Position
	events int
	opens  int      // streams
	beats  int      // keepalives
	drains int      // streams that ended because the server was about to stop
	resets []string // reasons
}

func (p *page) look() pageView {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.view
	v.resets = slices.Clone(v.resets)
	return v
}

func (p *page) change(change func(v *pageView)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.view)
}

// run has the page open until ctx is done.
func (p *page) run(ctx context.Context) {
	p.retry = time.Second
	for {
		err := p.connect(ctx)
		p.change(func(v *pageView) { v.open = false })
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errLeft):
			p.left = true
			select {
			case <-p.back:
			case <-ctx.Done():
			}
		case err != nil:
			p.t.Errorf("page %s gave up: %s", p.name, err)
			return
		default:
			p.pause(ctx)
		}
	}
}

// pause waits until the page may come back.
func (p *page) pause(ctx context.Context) {
	select {
	case <-time.After(p.retry):
	case <-p.hurry:
		select {
		case <-time.After(min(p.retry, retryPause)):
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
}

// errLeft is that the user has gone elsewhere.
var errLeft = errors.New("the page was left")

// connect reads one stream. Its error is what an EventSource does not come back from
// by itself.
func (p *page) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	address := p.address
	if p.next != nil {
		address = p.next()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/events?"+url.Values{"channel": p.channels}.Encode(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	if p.lastID != "" {
		req.Header.Set("Last-Event-ID", p.lastID)
	}
	seen := p.seen.Connect(p.lastID)
	resp, err := p.client.Do(req)
	if err != nil {
		seen.Closed(err.Error())
		return nil // upon which it tries again
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	for frames := newFrameReader(resp.Body); ; {
		f, err := frames.next()
		if err != nil {
			seen.Closed(err.Error())
			return nil // upon which it tries again
		}
		if err := p.take(f, seen); err != nil {
			return err
		}
		if p.back != nil && !p.left && p.look().events > 0 {
			seen.Closed(errLeft.Error())
			return errLeft
		}
		if p.breaks != nil && p.breaks() {
			seen.Closed("broken by the test")
			return nil
		}
	}
}

// take does with a frame what a browser does, and tells the history.
func (p *page) take(f frame, seen *ssetest.HistoryConnection) error {
	switch {
	case f.hasData:
		seen.Message(f.message)
	case f.hasID:
		seen.Cursor(f.message.ID)
	}
	if f.retry > 0 {
		p.retry = f.retry
	}
	var at sse.Position
	if f.hasID {
		var err error
		if at, err = sse.ParsePosition(f.message.ID); err != nil {
			return err
		}
		p.lastID = f.message.ID
	}
	p.change(func(v *pageView) {
		if f.hasID {
			v.at = at
		}
		if !f.hasData && f.retry == 0 {
			v.beats++
		}
		v.note(f.message)
	})
	return nil
}

func (v *pageView) note(m sse.Message) {
	switch {
	case m.Event == "hub:open", m.Event == "hub:reset":
		if m.Event == "hub:open" {
			v.open = true
			v.opens++
		}
		for _, reason := range []sse.ResetReason{sse.ResetEpoch, sse.ResetExpired, sse.ResetLimit, sse.ResetUnknown} {
			if strings.Contains(m.Data, fmt.Sprintf(`"reason":%q`, reason)) {
				v.resets = append(v.resets, string(reason))
			}
		}
	case m.Event == "hub:close":
		if m.Data == `{"reason":"drain"}` {
			v.drains++
		}
	case m.Data != "" && !strings.HasPrefix(m.Event, "hub:"):
		v.events++
	}
}
