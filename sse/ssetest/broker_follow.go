package ssetest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A follower is one call of Tail. It holds each call of deliver to the
// contract; what is wrong is told by report.
type follower struct {
	t      *trial
	cancel context.CancelFunc
	signed chan struct{} // closed by the sign that Tail is attached
	done   chan struct{} // closed when Tail has returned
	err    error         // why it did; read it after done is closed

	busy sync.Mutex // held while deliver runs

	mu      sync.Mutex // guards what follows
	last    sse.Position
	got     []sse.Entry
	atSign  int // how many of got came before the sign
	hasSign bool
	end     string // what returned, after which deliver must not be called
	crowded bool   // deliver was called concurrently
	faults  []string
}

// follow tails the record from a position, and returns when it is attached.
func (t *trial) follow(after sse.Position) *follower {
	t.Helper()
	f := t.tail(after)
	f.await("the sign that Tail is attached", f.signed)
	return f
}

// tail tails the record from a position. It may be called by any goroutine.
func (t *trial) tail(after sse.Position) *follower {
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{t: t, cancel: cancel, last: after, signed: make(chan struct{}), done: make(chan struct{})}
	broker := t.broker
	t.mu.Lock()
	t.followers = append(t.followers, f)
	t.mu.Unlock()
	go func() {
		defer close(f.done)
		f.err = broker.Tail(ctx, after, f.deliver)
		f.over("Tail")
	}()
	return f
}

func (f *follower) deliver(entries []sse.Entry) {
	alone := f.busy.TryLock()
	if alone {
		defer f.busy.Unlock()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crowded = f.crowded || !alone
	if f.end != "" {
		f.fault("deliver was called after %s had returned, with %d entries", f.end, len(entries))
	}
	if len(entries) == 0 {
		f.sign()
		return
	}
	for _, e := range entries {
		want := sse.Position{Epoch: f.last.Epoch, Seq: f.last.Seq + 1}
		if e.Position != want {
			f.fault("deliver was handed %s where %s follows", e.Position, want)
		}
		f.last = e.Position
		f.got = append(f.got, e)
	}
}

func (f *follower) sign() {
	if f.hasSign {
		f.fault("deliver was called without entries again")
		return
	}
	f.hasSign, f.atSign = true, len(f.got)
	close(f.signed)
}

func (f *follower) fault(format string, args ...any) {
	if len(f.faults) < 3 { // the others follow from the first
		f.faults = append(f.faults, fmt.Sprintf(format, args...))
	}
}

// over tells that deliver must not be called any more, and why.
func (f *follower) over(why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.end == "" {
		f.end = why
	}
}

// stop ends the Tail and returns its error.
func (f *follower) stop() error {
	f.t.Helper()
	f.cancel()
	f.wait()
	return f.err
}

// wait waits until Tail has returned.
func (f *follower) wait() {
	f.t.Helper()
	f.t.wait("Tail returns", func() bool { return isClosed(f.done) })
}

// await waits for what comes before Tail returns.
func (f *follower) await(what string, c <-chan struct{}) {
	f.t.Helper()
	f.t.wait(what, func() bool { return isClosed(c) || isClosed(f.done) })
	if !isClosed(c) {
		f.t.Fatalf("Tail returned before %s: %v", what, f.err)
	}
}

// until waits until the follower has come to a seq.
func (f *follower) until(seq uint64) {
	f.t.Helper()
	f.t.wait(fmt.Sprintf("the tail reaches %d", seq), func() bool { return f.position().Seq >= seq || isClosed(f.done) })
	if f.position().Seq < seq {
		f.t.Fatalf("Tail returned at %s, before %d: %v", f.position(), seq, f.err)
	}
}

func (f *follower) position() sse.Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// entries returns what was delivered.
func (f *follower) entries() []sse.Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.got)
}

// kept returns what was delivered before the sign.
func (f *follower) kept() []sse.Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.got[:f.atSign])
}

// report fails the case for each thing that was wrong.
func (f *follower) report() {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.crowded {
		f.t.Error("deliver was called concurrently")
	}
	for _, text := range f.faults {
		f.t.Error(text)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
