package boltbroker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/caddy-sse/caddy-sse/sse"
)

var errDisk = errors.New("the disk is on fire")

// A disk decides what becomes of the writing transactions of a broker, and
// counts them.
type disk struct {
	mu     sync.Mutex
	broken func(update func() error) error // nil if nothing is
	writes int
}

// notWritten is a disk that takes nothing.
func notWritten(func() error) error { return errDisk }

// inDoubt is a disk that takes all and says otherwise, as one may whose last
// sync fails.
func inDoubt(update func() error) error {
	return errors.Join(update(), errDisk)
}

func onDisk(b *Broker) *disk {
	d := new(disk)
	b.wrap = d.update
	return d
}

func (d *disk) set(broken func(func() error) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = broken
}

func (d *disk) update(update func() error) error {
	d.mu.Lock()
	d.writes++
	broken := d.broken
	d.mu.Unlock()
	if broken != nil {
		return broken(update)
	}
	return update()
}

func (d *disk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writes
}

// hold lets the next writes wait until the result is called.
func (d *disk) hold() (release func()) {
	gate := make(chan struct{})
	d.mu.Lock()
	broken := d.broken
	d.mu.Unlock()
	d.set(func(update func() error) error {
		<-gate
		if broken != nil {
			return broken(update)
		}
		return update()
	})
	return sync.OnceFunc(func() {
		d.set(broken)
		close(gate)
	})
}

// Two ways in which writing fails.
var failures = []struct {
	name   string
	broken func(func() error) error
}{
	{"not written", notWritten},
	{"in doubt", inDoubt},
}

// A listener tails a record until the end of the test.
type listener struct {
	mu   sync.Mutex
	data []string
	err  error
}

// listen returns when the tail is attached.
func listen(t testing.TB, b *Broker, after sse.Position) *listener {
	t.Helper()
	l := new(listener)
	attached := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		err := b.Tail(ctx, after, func(entries []sse.Entry) {
			if len(entries) == 0 {
				close(attached)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, e := range entries {
				l.data = append(l.data, e.Event.Data)
			}
		})
		l.mu.Lock()
		defer l.mu.Unlock()
		l.err = err
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	<-attached
	return l
}

func (l *listener) heard() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.data)
}

// An answer is what a publish returned.
type answer struct {
	at  []sse.Position
	err error
}

// ask publishes in the background. In a bubble, it waits until the request is
// queued, or taken.
func ask(ctx context.Context, b *Broker, events ...sse.Event) <-chan answer {
	answered := make(chan answer, 1)
	go func() {
		at, err := b.Publish(ctx, events)
		answered <- answer{at, err}
	}()
	synctest.Wait()
	return answered
}

func on(channel, data string) sse.Event {
	return sse.Event{Channels: []string{channel}, Data: data}
}

func ending(channel string) sse.Event {
	return sse.Event{Channels: []string{channel}, End: sse.EndOnly}
}
