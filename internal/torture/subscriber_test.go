package torture

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

const (
	// witnesses are the subscribers who are there before the first event. Some
	// of them follow everything to the end, others come back at the end.
	witnesses  = 6
	absentees  = 3
	retryPause = 100 * time.Millisecond

	sinceEarliest = "earliest"
)

// A subscriber is one client after the other: when it has had enough, it
// becomes a new one, which asks for something else.
type subscriber struct {
	w      *world
	number int
	lives  int
	random *rand.Rand
	client *http.Client

	seen     *ssetest.HistorySubscriber
	channels []string
	since    string   // what it presents next
	stale    []string // ids that it has had, of which a page might present one
	position sse.Position
	finished bool // all of its channels have ended
}

func newSubscriber(w *world, number int) *subscriber {
	s := &subscriber{w: w, number: number, random: fork(w.random)}
	s.begin()
	return s
}

func (s *subscriber) isWitness() bool  { return s.number < witnesses }
func (s *subscriber) isAbsentee() bool { return s.number < absentees }

// begin makes the subscriber a new one.
func (s *subscriber) begin() {
	s.client = pick(s.random, []*http.Client{s.w.clients.own, s.w.clients.narrow, s.w.clients.shared})
	s.since = pick(s.random, []string{"", "latest", sinceEarliest, sinceEarliest})
	switch {
	case s.isWitness():
		s.channels, s.since = []string{"*"}, "latest"
	default:
		s.channels = s.choose()
	}
	s.position, s.stale, s.finished = sse.Position{}, nil, false
	s.seen = s.w.history.NewSubscriber(fmt.Sprintf("%d.%d", s.number, s.lives), s.channels)
	s.lives++
}

// String tells who it is and where.
func (s *subscriber) String() string {
	return fmt.Sprintf("subscriber %d.%d of %q at %s", s.number, s.lives-1, s.channels, s.position)
}

func (s *subscriber) choose() []string {
	job := s.w.newestJob()
	switch s.random.IntN(8) {
	case 0:
		return []string{"busy-*"}
	case 1:
		return []string{"calm/*", "busy-1", "busy-1*"}
	case 2:
		return []string{"job-*", pick(s.random, s.w.channels)}
	case 3, 4:
		if job != "" {
			s.since = sinceEarliest
			return []string{job}
		}
	}
	var names []string
	for _, i := range s.random.Perm(len(s.w.channels))[:1+s.random.IntN(5)] {
		names = append(names, s.w.channels[i])
	}
	return names
}

// run lives until the chaos is over, and until it has caught up after that.
func (s *subscriber) run(ctx context.Context, arrived chan<- struct{}) {
	opened := func() {}
	if s.isWitness() {
		opened = sync.OnceFunc(func() { arrived <- struct{}{} })
	}
	for ctx.Err() == nil {
		err := s.connect(ctx, opened)
		switch {
		case s.caughtUp():
			return
		case err != nil || s.w.isQuiet():
			select {
			case <-time.After(retryPause):
			case <-ctx.Done():
			}
		case s.isAbsentee():
			s.w.sleep(ctx, time.Hour)
		case s.random.IntN(10) == 0:
			s.w.sleep(ctx, upTo(s.random, 5*time.Second))
		default:
			s.w.sleep(ctx, upTo(s.random, 200*time.Millisecond))
		}
		if !s.w.isQuiet() && !s.isWitness() && (s.finished || s.random.IntN(12) == 0) {
			s.begin()
		}
	}
}

// caughtUp reports whether the chaos is over, and the subscriber has everything.
func (s *subscriber) caughtUp() bool {
	return s.w.isQuiet() && (s.finished || (s.position.Epoch == s.w.target.Epoch && s.position.Seq >= s.w.target.Seq))
}

// request presents the position by one of the ways there are.
func (s *subscriber) request(ctx context.Context) (*http.Request, error) {
	query := url.Values{"channel": s.channels}
	header := ""
	switch {
	case !strings.Contains(s.since, ".") || s.random.IntN(4) == 0:
		query.Set(pick(s.random, []string{"since", "last_event_id"}), s.since)
	default:
		header = s.since
		if len(s.stale) > 0 && s.random.IntN(2) == 0 {
			query.Set("since", pick(s.random, s.stale)) // as in the URL of a page that is old
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, pick(s.random, s.w.nodes)+"/events?"+query.Encode(), nil)
	if err == nil && header != "" {
		req.Header.Set("Last-Event-ID", header)
	}
	return req, err
}

// connect reads one stream, for as long as the subscriber likes.
func (s *subscriber) connect(ctx context.Context, opened func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := s.request(ctx)
	if err != nil {
		s.w.t.Error(err)
		return err
	}
	seen := s.seen.Connect(s.since)
	resp, err := s.client.Do(req)
	if err != nil {
		seen.Closed(err.Error())
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent:
		seen.Nothing()
		s.finished = true
		return nil
	default:
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		s.w.t.Errorf("subscribe to %q since %q: %s %s", s.channels, s.since, resp.Status, body)
		return fmt.Errorf("status %s", resp.Status)
	}
	err = s.read(ctx, newFrameReader(resp.Body), seen, opened)
	if err != nil {
		seen.Closed(err.Error())
	}
	return err
}

// A whim is what a subscriber does to its stream.
type whim struct {
	drop  int // after that many frames; never if negative
	stall int // likewise
}

func (s *subscriber) whim() whim {
	w := whim{drop: -1, stall: -1}
	switch s.random.IntN(4) {
	case 0, 1:
		w.drop = s.random.IntN(300)
	case 2:
		w.stall = s.random.IntN(200)
	case 3:
		if s.client == s.w.clients.narrow {
			w.stall = s.random.IntN(50)
		}
	}
	if s.isAbsentee() {
		w = whim{drop: 1, stall: -1}
	}
	return w
}

// read returns nil if the subscriber has had enough, or everything.
func (s *subscriber) read(ctx context.Context, frames *frameReader, seen *ssetest.HistoryConnection, opened func()) error {
	todo := s.whim()
	caughtUp := false
	for n := 0; ; n++ {
		f, err := frames.next()
		if err != nil {
			return err
		}
		if err := s.note(f, seen); err != nil {
			return err
		}
		if n == 0 {
			opened()
		}
		switch {
		case caughtUp && !f.hasData: // a keepalive: nothing more was pending
			return nil
		case s.w.isQuiet():
			caughtUp = s.caughtUp()
		case n == todo.drop:
			s.w.counts.drops.Add(1)
			seen.Closed("dropped by the subscriber")
			return nil
		case n == todo.stall:
			s.w.counts.stalls.Add(1)
			s.w.sleep(ctx, upTo(s.random, 3*time.Second))
			todo = s.whim()
			todo.stall += n
			todo.drop += n
		}
	}
}

// note passes on what was received. The position is what a browser would
// present: it is moved by each id.
func (s *subscriber) note(f frame, seen *ssetest.HistoryConnection) error {
	switch {
	case f.hasData:
		seen.Message(f.message)
	case f.hasID:
		seen.Cursor(f.message.ID)
	}
	if f.hasID {
		at, err := sse.ParsePosition(f.message.ID)
		if err != nil {
			return err // the history has found it too
		}
		s.position, s.since = at, f.message.ID
		if s.random.IntN(100) == 0 && len(s.stale) < 10 {
			s.stale = append(s.stale, s.since)
		}
	}
	if f.message.Event == "hub:close" {
		s.finished = strings.Contains(f.message.Data, `"ended"`)
		return fmt.Errorf("closed: %s", f.message.Data)
	}
	return nil
}
