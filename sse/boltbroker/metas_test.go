package boltbroker

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
)

// failOnce publishes to a disk that fails after it has written all the same.
func failOnce(t *testing.T, b *Broker) {
	t.Helper()
	b.writing.Lock()
	b.wrap = func(update func() error) error {
		return errors.Join(update(), errors.New("the disk has gone"))
	}
	b.writing.Unlock()
	_, err := b.Publish(t.Context(), []sse.Event{{Channels: []string{"a"}, Data: "lost", ID: "x"}})
	if !errors.Is(err, sse.ErrUnavailable) {
		t.Errorf("Publish to a disk that fails: %v", err)
	}
	b.writing.Lock()
	b.wrap = nil
	b.writing.Unlock()
}

// After a failed commit nothing is written before the meta pages have been
// synced: the disk may still need the pages that seem to be free.
func TestMetasFirst(t *testing.T) {
	b := open(t, file(t), Options{})
	publish(t, b, "1")
	failOnce(t, b)
	before, err := os.ReadFile(b.path)
	if err != nil {
		t.Fatal(err)
	}
	readOnly, err := os.Open(b.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = readOnly.Close() }()
	b.writing.Lock()
	own := b.file
	b.file = readOnly
	b.writing.Unlock()
	if _, err := b.Publish(t.Context(), []sse.Event{{Channels: []string{"a"}, Data: "lost"}}); !errors.Is(err, sse.ErrUnavailable) {
		t.Errorf("Publish: %v", err)
	}
	after, err := os.ReadFile(b.path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("something was written though the meta pages could not be")
	}
	b.writing.Lock()
	b.file = own
	b.writing.Unlock()
	publish(t, b, "2")
	if got := stored(t, b); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("the record holds %q", got)
	}
}

// What a failed commit left is taken back by Close, if the disk works again.
func TestTakenBackByClose(t *testing.T) {
	b := open(t, file(t), Options{})
	publish(t, b, "1")
	failOnce(t, b)
	b = reopen(t, b, Options{})
	if got := stored(t, b); !slices.Equal(got, []string{"1"}) {
		t.Errorf("the file holds %q", got)
	}
}

// An end is not told before it is kept.
func TestEndWhileCommitting(t *testing.T) {
	b := open(t, file(t), Options{})
	b.writing.Lock()
	b.wrap = func(update func() error) error {
		if state, err := b.State(t.Context()); err != nil || len(state.Ended) > 0 {
			t.Errorf("the state before the commit is %+v, %v", state, err)
		}
		return update()
	}
	b.writing.Unlock()
	if _, err := b.Publish(t.Context(), []sse.Event{{Channels: []string{"a"}, End: sse.EndOnly}}); err != nil {
		t.Fatal(err)
	}
	if state, err := b.State(t.Context()); err != nil || len(state.Ended) != 1 {
		t.Errorf("the state after the commit is %+v, %v", state, err)
	}
}
