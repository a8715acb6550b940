//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// A poller receives plain HTTP/1.1 by one goroutine, whatever the number of
// streams.
type poller struct {
	sockets []int
	epoll   int
}

// openAtOnce is how many streams are opened before it is looked what those that
// are open have.
const openAtOnce = 16

func (p *poller) receive(a *audience) error {
	at, err := net.ResolveTCPAddr("tcp4", a.address)
	if err != nil {
		return err
	}
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	defer p.closeSockets()
	ready := make([]unix.EpollEvent, 512)
	buffer := make([]byte, 64<<10)
	for !a.closing.Load() {
		timeout := 50
		if p.mayConnect(a) {
			timeout = 0
			if err := p.connect(a, at); err != nil {
				return err
			}
		}
		n, err := unix.EpollWait(p.epoll, ready, timeout)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		for _, e := range ready[:max(n, 0)] {
			if err := p.read(a, int(e.Fd), buffer); err != nil {
				return err
			}
		}
	}
	return nil
}

// mayConnect reports whether there is a next stream to be opened now.
func (p *poller) mayConnect(a *audience) bool {
	if len(p.sockets) == len(a.streams) || a.pace == rush {
		return len(p.sockets) < len(a.streams)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	answered := len(a.streams) - a.opening
	return len(p.sockets)-answered < int(a.pace)
}

// connect opens the next streams.
func (p *poller) connect(a *audience, at *net.TCPAddr) error {
	first := len(p.sockets)
	for i := first; i < min(first+openAtOnce, len(a.streams)); i++ {
		wanted := a.begin(i)
		fd, err := dialRaw(at)
		if err != nil {
			return err
		}
		p.sockets = append(p.sockets, fd)
		if _, err := unix.Write(fd, wanted.request(a.address)); err != nil {
			return err
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			return err
		}
		if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return err
		}
	}
	return nil
}

// dialRaw returns a socket that is connected.
func dialRaw(at *net.TCPAddr) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	to := &unix.SockaddrInet4{Port: at.Port, Addr: [4]byte(at.IP.To4())}
	if err := unix.Connect(fd, to); err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// path is what the stream is asked for at.
func (s subscription) path() string { return "/events?channel=" + s.channel }

// request returns the one that opens a stream.
func (s subscription) request(host string) []byte {
	b := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n", s.path(), host)
	if s.after != "" {
		b = fmt.Appendf(b, "Last-Event-ID: %s\r\n", s.after)
	}
	return append(b, "\r\n"...)
}

// read takes what one socket has. A stream that ended is read no more, if that
// is to be counted only.
func (p *poller) read(a *audience, i int, buffer []byte) error {
	err := p.readSocket(a, i, buffer)
	if err == nil || !a.counting.Load() {
		return err
	}
	a.dropped.Add(1)
	return unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, p.sockets[i], nil)
}

func (p *poller) readSocket(a *audience, i int, buffer []byte) error {
	n, err := unix.Read(p.sockets[i], buffer)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return err
	case n == 0:
		return errEnded
	}
	return a.feed(i, buffer[:n])
}

// close has nothing to do: receive looks often enough whether it is over.
func (p *poller) close() {}

func (p *poller) closeSockets() {
	for _, fd := range p.sockets {
		_ = unix.Close(fd)
	}
	_ = unix.Close(p.epoll)
}
