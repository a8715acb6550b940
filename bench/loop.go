//go:build linux

package main

import (
	"bytes"
	"errors"
	"log"
	"net"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A loop is the floor: one goroutine that writes the bytes of an event, encoded
// once, to one blocking socket after the other. It does nothing else that a
// server has to do: sockets stay open when their clients have left.
type loop struct {
	mu      sync.Mutex // guards what follows, also while they are written to
	sockets map[string][]int
}

type loopEvent struct{ channel, data string }

// serveLoop listens for streams, and returns how to publish to them.
func serveLoop(address string) publishFunc {
	l := &loop{sockets: make(map[string][]int)}
	listener, err := listenRaw(address)
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(l.accept(listener)) }()
	events := make(chan loopEvent, 64)
	go l.write(events)
	return func(channel, data string) { events <- loopEvent{channel, data} }
}

func listenRaw(address string) (int, error) {
	at, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	to := &unix.SockaddrInet4{Port: at.Port, Addr: [4]byte(at.IP.To4())}
	if err := unix.Bind(fd, to); err != nil {
		return 0, err
	}
	return fd, unix.Listen(fd, unix.SOMAXCONN)
}

func (l *loop) accept(listener int) error {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if err := l.join(fd); err != nil {
			_ = unix.Close(fd) // it said nothing, as those do that only look whether somebody listens
		}
	}
}

// join reads the request and answers it.
func (l *loop) join(fd int) error {
	// Go's net package does the same to every connection.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	var request []byte
	for !bytes.HasSuffix(request, []byte("\r\n\r\n")) {
		var b [1024]byte
		n, err := unix.Read(fd, b[:])
		if err != nil {
			return err
		}
		if n == 0 {
			return net.ErrClosed
		}
		request = append(request, b[:n]...)
	}
	_, rest, _ := strings.Cut(string(request), "channel=")
	channel, _, _ := strings.Cut(rest, " ")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sockets[strings.Clone(channel)] = append(l.sockets[channel], fd)
	_, err := unix.Write(fd, []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"))
	return err
}

func (l *loop) write(events <-chan loopEvent) {
	at := sse.Position{Epoch: sse.NewEpoch()}
	var frame []byte
	for e := range events {
		at.Seq++
		frame = sse.AppendEvent(frame[:0], at, &sse.Event{Data: e.data})
		l.mu.Lock()
		for _, fd := range l.sockets[e.channel] {
			// A client that is gone, or that got a part because of a
			// signal, shows at the other end: all must be received.
			_, _ = unix.Write(fd, frame)
		}
		l.mu.Unlock()
	}
}
