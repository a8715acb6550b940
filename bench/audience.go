//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// An audience is many streams of one server, opened and read by one goroutine
// so that receiving costs as little as it can: server and client share the
// machine.
type audience struct {
	address  string
	sockets  []int
	streams  []stream
	epoll    int
	expected atomic.Pointer[expectation] // what may arrive now
	ended    chan struct{}               // closed when nothing is read any more
	err      error                       // why, once ended is closed
	closing  atomic.Bool
	opening  int           // streams without an answer
	open     chan struct{} // closed when all have one
	heard    atomic.Int64  // pieces that were read and had an answer or events
	wrong    atomic.Int64  // events that nobody expected, or expected once, or earlier
}

// An expectation notes that a stream got an event, and reports whether it was
// to get it now. Only the audience's goroutine calls it.
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

// patience is how long no event may arrive while one is expected.
const patience = 30 * time.Second

// openAtOnce is how many streams are opened before it is looked what those that
// are open have.
const openAtOnce = 16

var errSilence = fmt.Errorf("nothing arrived for %s", patience)

// openAudience opens a stream for each subscription and returns when all were
// answered.
func openAudience(ctx context.Context, address string, wanted []subscription, e expectation) (*audience, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	a := &audience{
		address: address, streams: make([]stream, len(wanted)), epoll: epoll, opening: len(wanted),
		open: make(chan struct{}), ended: make(chan struct{}),
	}
	for i, w := range wanted {
		a.streams[i].subscription = w
	}
	a.expect(e)
	go a.receive()
	if err := a.wait(ctx, a.open); err != nil {
		return nil, fmt.Errorf("open %d streams: %w", len(wanted), errors.Join(err, a.close()))
	}
	return a, nil
}

// expect replaces what may arrive.
func (a *audience) expect(e expectation) { a.expected.Store(&e) }

// receive opens the streams, and reads them until the audience is closed or one
// of them fails.
func (a *audience) receive() {
	defer close(a.ended)
	at, err := net.ResolveTCPAddr("tcp4", a.address)
	if err != nil {
		a.err = err
		return
	}
	ready := make([]unix.EpollEvent, 512)
	buffer := make([]byte, 64<<10)
	for !a.closing.Load() {
		timeout := 50
		if len(a.sockets) < len(a.streams) {
			timeout = 0
			if a.err = a.connect(at); a.err != nil {
				return
			}
		}
		n, err := unix.EpollWait(a.epoll, ready, timeout)
		if err != nil && !errors.Is(err, unix.EINTR) {
			a.err = err
			return
		}
		for _, e := range ready[:max(n, 0)] {
			if a.err = a.read(int(e.Fd), buffer); a.err != nil {
				return
			}
		}
	}
}

// connect opens the next streams.
func (a *audience) connect(at *net.TCPAddr) error {
	to := &unix.SockaddrInet4{Port: at.Port, Addr: [4]byte(at.IP.To4())}
	first := len(a.sockets)
	for i := first; i < min(first+openAtOnce, len(a.streams)); i++ {
		s := &a.streams[i]
		s.began = now()
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		a.sockets = append(a.sockets, fd)
		if err := unix.Connect(fd, to); err != nil {
			return err
		}
		if _, err := unix.Write(fd, s.request(a.address)); err != nil {
			return err
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			return err
		}
		if err := unix.EpollCtl(a.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return err
		}
	}
	return nil
}

// request returns the one that opens a stream.
func (s subscription) request(host string) []byte {
	b := fmt.Appendf(nil, "GET /events?channel=%s HTTP/1.1\r\nHost: %s\r\n", s.channel, host)
	if s.after != "" {
		b = fmt.Appendf(b, "Last-Event-ID: %s\r\n", s.after)
	}
	return append(b, "\r\n"...)
}

// read takes what one socket has. What is expected is looked up after the read,
// so that it is what can be among that.
func (a *audience) read(i int, buffer []byte) error {
	n, err := unix.Read(a.sockets[i], buffer)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return err
	case n == 0:
		return errEnded
	}
	s, expected, at := &a.streams[i], *a.expected.Load(), now()
	opening, news := s.state == inHead, false
	err = s.feed(buffer[:n], func(frame []byte) {
		inOrder := s.note(frame)
		event, ok := readStamp(frame)
		news = news || ok
		if ok && (!inOrder || !expected.take(i, event, at)) {
			a.wrong.Add(1)
		}
	})
	if opening && s.state != inHead {
		s.answered = at
		if a.opening--; a.opening == 0 {
			close(a.open)
		}
		news = true
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
	<-a.ended
	for _, fd := range a.sockets {
		_ = unix.Close(fd)
	}
	_ = unix.Close(a.epoll)
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
