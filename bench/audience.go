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

// An audience is many streams of one server, read by one goroutine so that
// receiving costs as little as it can: server and client share the machine.
type audience struct {
	sockets []int
	streams []stream
	epoll   int
	series  atomic.Pointer[series] // what is expected now
	ended   chan struct{}          // closed when nothing is read any more
	err     error                  // why, once ended is closed
	closing atomic.Bool
	opening int           // streams without an answer
	open    chan struct{} // closed when all have one
	heard   atomic.Int64  // pieces that were read
	wrong   atomic.Int64  // events that nobody expected, or expected once
}

// patience is how long nothing may arrive while something is expected.
const patience = 30 * time.Second

var errSilence = fmt.Errorf("nothing arrived for %s", patience)

// openAudience opens n streams and returns when all were answered. The i-th is
// subscribed to channel(i).
func openAudience(ctx context.Context, address string, n int, channel func(i int) string) (*audience, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	a := &audience{
		streams: make([]stream, n), epoll: epoll, opening: n,
		open: make(chan struct{}), ended: make(chan struct{}),
	}
	err = a.connect(ctx, address, channel)
	go a.receive()
	if err == nil {
		err = a.wait(ctx, a.open)
	}
	if err != nil {
		return nil, fmt.Errorf("open %d streams: %w", n, errors.Join(err, a.close()))
	}
	return a, nil
}

func (a *audience) connect(ctx context.Context, address string, channel func(i int) string) error {
	at, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return err
	}
	to := &unix.SockaddrInet4{Port: at.Port, Addr: [4]byte(at.IP.To4())}
	for i := range a.streams {
		if err := ctx.Err(); err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		a.sockets = append(a.sockets, fd)
		if err := unix.Connect(fd, to); err != nil {
			return err
		}
		if _, err := unix.Write(fd, fmt.Appendf(nil, "GET /events?channel=%s HTTP/1.1\r\nHost: %s\r\n\r\n", channel(i), address)); err != nil {
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

// receive reads all streams until the audience is closed or one of them fails.
func (a *audience) receive() {
	defer close(a.ended)
	ready := make([]unix.EpollEvent, 512)
	buffer := make([]byte, 64<<10)
	for !a.closing.Load() {
		n, err := unix.EpollWait(a.epoll, ready, 50)
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

// read takes what one socket has. The series is looked up after the read, so
// that it is one whose events can be among that.
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
	a.heard.Add(1)
	s, at := a.series.Load(), now()
	opening := a.streams[i].state == inHead
	err = a.streams[i].feed(buffer[:n], func(frame []byte) {
		if event, ok := readStamp(frame); ok && !s.take(i, event, at) {
			a.wrong.Add(1)
		}
	})
	if opening && a.streams[i].state != inHead {
		if a.opening--; a.opening == 0 {
			close(a.open)
		}
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
		return fmt.Errorf("%d events arrived twice, late, or where they were not published", n)
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
