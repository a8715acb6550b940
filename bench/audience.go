//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// An audience is many streams of one server, opened and read so that receiving
// costs as little as it can: server and client share the machine.
type audience struct {
	address  string
	pace     pace
	receiver receiver
	expected atomic.Pointer[expectation] // what may arrive now
	ended    chan struct{}               // closed when nothing is read any more
	err      error                       // why, once ended is closed
	closing  atomic.Bool
	counting atomic.Bool   // whether streams that end are counted, instead of being an error
	dropped  atomic.Int64  // streams that ended
	open     chan struct{} // closed when all streams have an answer
	heard    atomic.Int64  // pieces that were read and had an answer or events
	wrong    atomic.Int64  // events that nobody expected, or expected once, or earlier

	mu      sync.Mutex // guards what follows, and the expectation, while it is read
	streams []stream
	opening int // streams without an answer
}

// A receiver opens the streams of an audience and hands on what they bring.
type receiver interface {
	// receive returns when the audience is closing, or one of its streams
	// fails.
	receive(a *audience) error
	// close lets receive return, if the audience is closing.
	close()
}

// An expectation notes that a stream got an event, and reports whether it was
// to get it now. It is called for one event at a time.
type expectation interface {
	take(stream int, event stamp, at time.Duration) bool
}

// nothing is the expectation of an audience that has just opened.
type nothing struct{}

func (nothing) take(int, stamp, time.Duration) bool { return false }

// A subscription is what a stream asks for.
type subscription struct {
	channel string
	after   string // the id that it resumes behind, if any
}

// A pace is how many streams may be opened before others have an answer. It does not
// bound those of TLS, to open which takes the client as long as the server.
type pace int

const (
	// steady is how clients come when nothing has happened. What a stream
	// needs is measured so: it has handlers that leave little behind when they
	// have returned.
	steady pace = 64
	// rush is no limit, as after a restart.
	rush pace = 0
)

// patience is how long no event may arrive while one is expected.
const patience = 30 * time.Second

var errSilence = fmt.Errorf("nothing arrived for %s", patience)

// open opens a stream for each subscription and returns when all were answered.
func (s *server) open(ctx context.Context, wanted []subscription, e expectation, p pace) (*audience, error) {
	return s.openShared(ctx, wanted, e, p, 1)
}

// openShared is open with several streams on each connection, of HTTP/2.
func (s *server) openShared(ctx context.Context, wanted []subscription, e expectation, p pace, share int) (*audience, error) {
	a := &audience{
		address: s.streamsAt, pace: p, streams: make([]stream, len(wanted)), opening: len(wanted),
		open: make(chan struct{}), ended: make(chan struct{}),
	}
	for i, w := range wanted {
		a.streams[i].subscription = w
	}
	a.expect(e)
	if s.protocol == plainHTTP1 {
		a.receiver = new(poller)
	} else {
		a.receiver = newSecureReceiver(s.protocol, s.kit.certificate, share)
	}
	go func() {
		defer close(a.ended)
		a.err = a.receiver.receive(a)
	}()
	if err := a.wait(ctx, a.open); err != nil {
		return nil, fmt.Errorf("open %d streams: %w", len(wanted), errors.Join(err, a.close()))
	}
	return a, nil
}

// expect replaces what may arrive.
func (a *audience) expect(e expectation) { a.expected.Store(&e) }

// begin notes that a stream is about to be opened, and returns what it asks for.
func (a *audience) begin(i int) subscription {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.streams[i].began = now()
	return a.streams[i].subscription
}

// answer notes that a stream was answered, of which only the body is fed.
func (a *audience) answer(i int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.streams[i].state = inBody
	a.answered(&a.streams[i])
}

// answered notes that a stream was answered. The lock is held.
func (a *audience) answered(s *stream) {
	s.answered = now()
	a.heard.Add(1)
	if a.opening--; a.opening == 0 {
		close(a.open)
	}
}

// feed takes what one stream brought. What is expected is looked up after that
// was read, so that it is what can be among it.
func (a *audience) feed(i int, b []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, expected, at := &a.streams[i], *a.expected.Load(), now()
	opening, news := s.state == inHead, false
	err := s.feed(b, func(frame []byte) {
		inOrder := s.note(frame)
		event, ok := readStamp(frame)
		news = news || ok
		if ok && (!inOrder || !expected.take(i, event, at)) {
			a.wrong.Add(1)
		}
	})
	if opening && s.state != inHead {
		a.answered(s)
	}
	if news { // the hub's own frames come even if what is expected does not
		a.heard.Add(1)
	}
	if err == nil {
		err = s.broken
	}
	return err
}

// wait returns when done is closed, or with the reason why that is hopeless.
func (a *audience) wait(ctx context.Context, done <-chan struct{}) error {
	heard := int64(-1)
	for {
		select {
		case <-done:
			return nil
		case <-a.ended:
			return a.err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(patience):
			if was := heard; a.heard.Load() == was {
				return errSilence
			}
			heard = a.heard.Load()
		}
	}
}

// check returns an error if anything arrived that should not have.
func (a *audience) check() error {
	if n := a.wrong.Load(); n > 0 {
		return fmt.Errorf("%d events arrived twice, late, out of order, or where they were not published", n)
	}
	return nil
}

// close ends all streams, and checks them for the last time.
func (a *audience) close() error {
	a.closing.Store(true)
	a.receiver.close()
	<-a.ended
	return a.check()
}

// left returns how the streams of an audience that is closed would resume.
func (a *audience) left() []subscription {
	wanted := make([]subscription, len(a.streams))
	for i := range a.streams {
		wanted[i] = subscription{a.streams[i].channel, string(a.streams[i].last)}
	}
	return wanted
}

// checkResumed returns an error if the hub told a stream of an audience that is
// closed anything but that it missed nothing for good.
func (a *audience) checkResumed() error {
	for i := range a.streams {
		if said := a.streams[i].resume; said != "complete" {
			return fmt.Errorf("a stream whose missed events are all kept was told that its resume is %q", said)
		}
	}
	return nil
}

// waits returns how long the streams took, which were all answered, from their
// connects until a time that a function tells.
func (a *audience) waits(until func(i int) time.Duration) *histogram {
	h := new(histogram)
	for i := range a.streams {
		h.add(until(i) - a.streams[i].began)
	}
	return h
}
