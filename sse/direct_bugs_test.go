//go:build linux

package sse_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A stream stayed asleep that had news: the last that it knew of fitted into its
// socket in part only, and when the rest was written it went to sleep, as there
// had been nothing behind it, though an event had come meanwhile.
func TestDirectNewsWhileFull(t *testing.T) {
	for _, wire := range directWires {
		t.Run(wire, func(t *testing.T) {
			h := newHub(t, sse.Options{})
			s := startDirect(t, wire, h, quiet)
			s.sendBuffer = 4 << 10
			c := s.open(t, "channel=a")
			c.frame(t)
			publish(t, h, strings.Repeat("x", 900_000), "a")
			publishN(t, h, 1, "a")
			checkWords(t, "what came meanwhile", summary(t, []byte(c.frame(t)+c.frame(t))), seqs(1, 2))
		})
	}
}

// An emptied queue kept the last stream that had been in it, and with one of TLS
// the configuration that its connection was accepted under, until the next one came.
func TestDirectQueueForgets(t *testing.T) {
	if sse.QueueHolds() {
		t.Error("a queue without streams holds on to one")
	}
}

// A client with TLS that announces tiny segments could stop a writer, and all
// streams with it: the kernel needs so much memory for each segment that what a
// writer takes to fit into a socket with room does not. Such a client is left to
// the stream engine, where it holds up nobody.
func TestDirectTightTLS(t *testing.T) {
	for name, option := range map[string]struct{ level, name, value int }{
		"segments": {unix.IPPROTO_TCP, unix.TCP_MAXSEG, 300},
		"window":   {unix.SOL_SOCKET, unix.SO_RCVBUF, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := startDirect(t, "tls", newHub(t, sse.Options{}), quiet)
			dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
				failed := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), option.level, option.name, option.value) })
				if failed != nil {
					return failed
				}
				return err
			}}
			conn, err := tls.DialWithDialer(&dialer, "tcp", s.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "GET /?channel=a HTTP/1.1\r\nHost: example.com\r\n\r\n")
			select {
			case <-s.refused:
			case end := <-s.ends:
				t.Errorf("it ended %+v", end)
			case <-time.After(directPatience):
				t.Error("the direct engine took it")
			}
		})
	}
}

// When the kernel is short of memory, it takes back what it had for a socket. A
// write over TLS for which there had been room waited then, until the peer was given
// up after a minute, and with it all streams of the writer.
func TestDirectStallTLS(t *testing.T) {
	h := newHub(t, sse.Options{})
	deaf := startDirect(t, "tls", h, quiet)
	var held net.Conn
	deaf.Config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		held = r.Context().Value(connKey{}).(net.Conn)
		s := subscribe(t, h, sse.Latest(), "a")
		if err := h.WriteWithoutRoom(s, held.(*tls.Conn), make([]byte, 32<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the write that waits ends with %v", err)
		}
		deaf.ends <- s.Stream(r.Context(), httptest.NewRecorder(), deaf.tuning)
	})
	conn := deaf.connect(t)
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
	if end := deaf.end(t); end.Reason != sse.CloseSlow {
		t.Errorf("it ended %+v, want slow", end)
	}
}

// When epoll did not take a socket, the stream's place among the polled was given
// back twice. The next two streams then had the same, and one was told what
// happened to the other.
func TestDirectNotPolled(t *testing.T) {
	h := newHub(t, sse.Options{})
	ended := make(chan sse.End, 3)
	join := func(file int) uint32 {
		slot, err := h.Join(subscribe(t, h, sse.Latest(), "a"), file, ownerFunc(func(end sse.End) { ended <- end }))
		if err != nil {
			t.Fatal(err)
		}
		return slot
	}
	regular, err := os.Open(os.Args[0]) // which can always be written to, so that there is nothing to poll
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	file, err := unix.Dup(int(regular.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	join(file)
	if end := <-ended; end.Err == nil {
		t.Errorf("it ended %+v, want an error", end)
	}
	slots := make(map[uint32]bool)
	for range 2 {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pair[1])
		slots[join(pair[0])] = true
	}
	if len(slots) != 2 {
		t.Error("two streams have the same place")
	}
}

// A stream whose client had left while the record was read for it stayed, with its
// file and its place among the limits, until the record answered, though nobody
// waited for that.
func TestDirectGoneWhileLent(t *testing.T) {
	k := newKeeper()
	h := newHubOn(t, &hangingBroker{keeper: k}, sse.Options{})
	s := startDirect(t, "tcp", h, quiet)
	publishN(t, h, 20, "a")
	h.EvictAll()
	c := s.open(t, "channel=a", "Last-Event-ID: "+at(h, 1).String())
	c.frame(t)
	c.Close()
	if end := s.end(t); end.Reason != sse.CloseClient {
		t.Errorf("it ended %+v, want client", end)
	}
}

// A hangingBroker does not answer who reads it.
type hangingBroker struct{ *keeper }

func (b *hangingBroker) Read(ctx context.Context, _ sse.Position, _ []string, _ int) (sse.Page, error) {
	<-ctx.Done()
	return sse.Page{}, ctx.Err()
}
