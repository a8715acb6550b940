package sse_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// newHub starts a hub on a memory broker that ends with the test.
func newHub(t testing.TB, options sse.Options) *sse.Hub {
	t.Helper()
	return newHubOn(t, sse.NewMemoryBroker(), options)
}

func newHubOn(t testing.TB, broker sse.Broker, options sse.Options) *sse.Hub {
	t.Helper()
	h, err := sse.NewHub(t.Context(), broker, options)
	if err != nil {
		t.Fatalf("NewHub: %v", err)
	}
	t.Cleanup(func() {
		h.Close()
		if err := broker.Close(); err != nil {
			t.Errorf("Close of the broker: %v", err)
		}
	})
	return h
}

// publish publishes one event and returns its position.
func publish(t testing.TB, h *sse.Hub, data string, channels ...string) sse.Position {
	t.Helper()
	receipts, err := h.Publish(t.Context(), sse.Event{Channels: channels, Data: data})
	if err != nil {
		t.Fatalf("Publish: %v", err)
	}
	return receipts[0].Position
}

// publishN publishes n events of the channel, one after the other, whose data
// is their seq.
func publishN(t testing.TB, h *sse.Hub, n int, channels ...string) {
	t.Helper()
	for range n {
		publish(t, h, fmt.Sprint(h.Stats().Position.Seq+1), channels...)
	}
}

func subscribe(t testing.TB, h *sse.Hub, start sse.Start, channels ...string) *sse.Subscriber {
	t.Helper()
	return subscribeWith(t, h, sse.SubscribeOptions{Start: start, Channels: channels})
}

func subscribeWith(t testing.TB, h *sse.Hub, options sse.SubscribeOptions) *sse.Subscriber {
	t.Helper()
	s, err := h.Subscribe(t.Context(), options)
	if err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
	return s
}

// at returns a position of the hub.
func at(h *sse.Hub, seq uint64) sse.Position {
	return sse.Position{Epoch: h.Stats().Position.Epoch, Seq: seq}
}

// after returns the start behind a seq of the hub.
func after(h *sse.Hub, seq uint64) sse.Start { return sse.After(at(h, seq)) }

// state is the data of hub:open and hub:reset.
type state struct {
	Connection string
	Channels   []string
	Resume     sse.Resume
	Reset      []sse.Reset
}

// String is short: the resume, and the resets as channel=reason.
func (s state) String() string {
	text := string(s.Resume)
	for _, r := range s.Reset {
		text += fmt.Sprintf(" %s=%s", r.Channel, r.Reason)
	}
	return text
}

// block is one frame as a browser sees it: the id that it leaves as the last
// event ID, and the message, with an empty event if it fires none.
type block struct {
	id  sse.Position // zero if the frame has no id
	msg sse.Message
}

// isHub reports whether the frame is the hub's own event of that name.
func (b block) is(event string) bool { return b.msg.Event == event }

func (b block) state(t testing.TB) state {
	t.Helper()
	var s state
	if err := json.Unmarshal([]byte(b.msg.Data), &s); err != nil {
		t.Fatalf("data of %s is not JSON: %v: %q", b.msg.Event, err, b.msg.Data)
	}
	return s
}

// splitBlocks decodes the complete frames at the beginning of a stream's bytes
// and returns what is left.
func splitBlocks(stream []byte) (blocks []block, rest []byte, err error) {
	for {
		end := bytes.Index(stream, []byte("\n\n"))
		if end < 0 {
			return blocks, stream, nil
		}
		b, err := decodeBlock(stream[:end+2])
		if err != nil {
			return blocks, stream, err
		}
		blocks = append(blocks, b)
		stream = stream[end+2:]
	}
}

func decodeBlock(frame []byte) (block, error) {
	var b block
	decoder := sse.NewDecoder(bytes.NewReader(frame))
	if m, err := decoder.Decode(); err == nil {
		b.msg = m
	}
	if id := decoder.LastEventID(); id != "" {
		at, err := sse.ParsePosition(id)
		if err != nil {
			return b, fmt.Errorf("frame %q: %w", frame, err)
		}
		b.id = at
	}
	return b, nil
}

// blocks decodes whole frames.
func blocks(t testing.TB, stream []byte) []block {
	t.Helper()
	found, rest, err := splitBlocks(stream)
	if err != nil {
		t.Fatal(err)
	}
	if len(rest) > 0 {
		t.Fatalf("the stream ends within a frame: %q", rest)
	}
	return found
}

// summary tells what frames say, one word or more each: events as their seq,
// or seq:event when named; the hub's own as name@seq and what they tell.
func summary(t testing.TB, stream []byte) []string {
	t.Helper()
	var words []string
	for _, b := range blocks(t, stream) {
		switch {
		case b.is("hub:open"), b.is("hub:reset"):
			words = append(words, fmt.Sprintf("%s@%d %s", b.msg.Event, b.id.Seq, b.state(t)))
		case b.is("hub:close"), b.is("hub:end"):
			words = append(words, b.msg.Event+" "+b.msg.Data)
		case b.is(""):
			words = append(words, fmt.Sprintf("keepalive@%d", b.id.Seq))
		case b.is("message"):
			words = append(words, fmt.Sprint(b.id.Seq))
		default:
			words = append(words, fmt.Sprintf("%d:%s", b.id.Seq, b.msg.Event))
		}
	}
	return words
}

// pullAll returns the summary of all that the subscriber's engine would write
// from its start on.
func pullAll(t testing.TB, s *sse.Subscriber) []string {
	t.Helper()
	return summary(t, append(s.OpenFrame(), pending(t, s)...))
}

// pending returns all that the engine would write now.
func pending(t testing.TB, s *sse.Subscriber) (stream []byte) {
	t.Helper()
	for {
		frames, events, closing := s.Pull()
		if closing != "" {
			t.Errorf("the stream closes: %s", closing)
		}
		if len(frames) == 0 {
			return stream
		}
		got := 0
		for _, b := range blocks(t, frames) {
			if !b.is("") && !strings.HasPrefix(b.msg.Event, "hub:") {
				got++
			}
		}
		if got != events {
			t.Errorf("a batch of %d events says that it has %d", got, events)
		}
		stream = append(stream, frames...)
	}
}

func seqs(from, to int) (words []string) {
	for i := from; i <= to; i++ {
		words = append(words, fmt.Sprint(i))
	}
	return words
}

func words(parts ...[]string) []string { return slices.Concat(parts...) }

func checkWords(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// A recorder is a response writer whose every step a test can take over.
type recorder struct {
	onWrite func(p []byte) (int, error) // before p is recorded; nil takes all
	onFlush func() error
	onLimit func(time.Time) error // SetWriteDeadline

	mu      sync.Mutex // guards what follows
	header  http.Header
	status  int
	body    []byte
	writes  int
	flushes []flush
}

// A flush is when it was, and how many bytes had been written then.
type flush struct {
	when  time.Time
	bytes int
}

func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = make(http.Header)
	}
	return r.header
}

func (r *recorder) WriteHeader(status int) { r.status = status }

func (r *recorder) Write(p []byte) (int, error) {
	n, err := len(p), error(nil)
	if r.onWrite != nil {
		n, err = r.onWrite(p)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes++
	r.body = append(r.body, p[:n]...)
	return n, err
}

func (r *recorder) FlushError() error {
	r.mu.Lock()
	r.flushes = append(r.flushes, flush{time.Now(), len(r.body)})
	r.mu.Unlock()
	if r.onFlush != nil {
		return r.onFlush()
	}
	return nil
}

func (r *recorder) SetWriteDeadline(at time.Time) error {
	if r.onLimit != nil {
		return r.onLimit(at)
	}
	return http.ErrNotSupported
}

func (r *recorder) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.body)
}

func (r *recorder) flushed() []flush {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.flushes)
}

func kick(t testing.TB, h *sse.Hub, sel sse.Selection) int {
	t.Helper()
	n, err := h.Kick(t.Context(), sel)
	if err != nil {
		t.Errorf("Kick: %v", err)
	}
	return n
}

func knows(t testing.TB, h *sse.Hub, connection string) uint64 {
	t.Helper()
	session, err := h.Knows(t.Context(), connection, "")
	if err != nil {
		t.Errorf("Knows: %v", err)
	}
	return session
}

func connections(t testing.TB, h *sse.Hub, sel sse.Selection, after string, limit int) []sse.ConnectionInfo {
	t.Helper()
	infos, err := h.Connections(t.Context(), sel, after, limit)
	if err != nil {
		t.Errorf("Connections: %v", err)
	}
	return infos
}

func channelOf(t testing.TB, h *sse.Hub, name string, limit int) (sse.ChannelInfo, []sse.KeptEvent, bool) {
	t.Helper()
	info, events, ok, err := h.Channel(t.Context(), name, limit)
	if err != nil {
		t.Errorf("Channel: %v", err)
	}
	return info, events, ok
}

func channelsOf(t testing.TB, h *sse.Hub, prefix, after string, limit int, may func(string) bool) []sse.ChannelInfo {
	t.Helper()
	infos, err := h.Channels(t.Context(), prefix, after, limit, may)
	if err != nil {
		t.Errorf("Channels: %v", err)
	}
	return infos
}
