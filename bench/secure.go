//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
)

// A secureReceiver receives over TLS, with a goroutine for each connection.
// That is not cheap, and no matter: it is the server's CPU and memory that are
// measured.
type secureReceiver struct {
	dialer tls.Dialer
	share  int // streams on each connection
	// read opens the streams from the given one on and reads them until that
	// fails.
	read func(a *audience, conn *tls.Conn, first int) error

	ctx    context.Context // done when the receiver is closed
	cancel context.CancelFunc
}

func newSecureReceiver(p protocol, c certificate, share int) *secureReceiver {
	r := &secureReceiver{share: share, read: readSecure}
	r.dialer.Config = &tls.Config{RootCAs: c.roots, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS13}
	if p == secureH2 {
		r.read, r.dialer.Config.NextProtos = r.readFrames, []string{"h2"}
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

func (r *secureReceiver) close() { r.cancel() }

func (r *secureReceiver) receive(a *audience) error {
	var running sync.WaitGroup
	failed := make(chan error, 1)
	connecting := make(chan struct{}, openAtOnce)
	for first := 0; first < len(a.streams); first += r.share {
		connecting <- struct{}{}
		running.Go(func() {
			conn, err := r.dialer.DialContext(r.ctx, "tcp", a.address)
			<-connecting
			if err == nil {
				stop := context.AfterFunc(r.ctx, func() { _ = conn.Close() })
				err = r.read(a, conn.(*tls.Conn), first)
				stop()
				_ = conn.Close()
			}
			select {
			case failed <- err:
			default: // another one has failed first
			}
			r.close()
		})
	}
	running.Wait()
	if err := <-failed; !a.closing.Load() {
		return err
	}
	return nil
}

// readSecure reads the one stream of HTTP/1.1.
func readSecure(a *audience, conn *tls.Conn, first int) error {
	if err := negotiated(conn, "http/1.1"); err != nil {
		return err
	}
	if _, err := conn.Write(a.begin(first).request(a.address)); err != nil {
		return err
	}
	buffer := make([]byte, 4<<10)
	for {
		n, err := conn.Read(buffer)
		if n > 0 {
			if err := a.feed(first, buffer[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return errors.Join(errEnded, err)
		}
	}
}

// negotiated returns an error if the server did not choose a protocol.
func negotiated(conn *tls.Conn, want string) error {
	if got := conn.ConnectionState().NegotiatedProtocol; got != want {
		return fmt.Errorf("the server speaks %q, not %q", got, want)
	}
	return nil
}
