//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// A plan says which server to start.
type plan struct {
	engine   string
	kit      *kit
	protocol protocol // empty is plain HTTP/1.1
	hub      string   // the options of Caddy's hub, lines of a Caddyfile; empty for the defaults
}

// A server is one engine in a process of its own.
type server struct {
	plan
	dir string // for its files
	pid int
	// Addresses of the event streams, of the publish endpoint, and of
	// net/http/pprof or what else it has or needs.
	streamsAt, publishAt, adminAt string

	cancel  context.CancelFunc
	exited  chan struct{}
	log     *bytes.Buffer // to be read when it has exited
	closers []io.Closer   // of what is here for it
}

// startTimeout is how long a server may take until it listens.
const startTimeout = 20 * time.Second

// startServer starts an engine and returns when it listens. The caller stops
// it; it is killed as well when ctx is done or this process ends.
func startServer(ctx context.Context, p plan) (*server, error) {
	addresses, err := freeAddresses(3)
	if err != nil {
		return nil, err
	}
	if p.protocol == "" {
		p.protocol = plainHTTP1
	}
	dir, err := os.MkdirTemp(p.kit.dir, p.engine+"-")
	if err != nil {
		return nil, err
	}
	s := &server{plan: p, dir: dir, streamsAt: addresses[0], publishAt: addresses[1], adminAt: addresses[2]}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// restart kills the server with SIGKILL, and starts it again at the same
// addresses.
func (s *server) restart(ctx context.Context) error {
	s.stop()
	return s.start(ctx)
}

func (s *server) start(ctx context.Context) error {
	cmd, err := engines[s.engine].command(s)
	if err != nil {
		return err
	}
	log := new(bytes.Buffer)
	cmd.Stderr = log
	cmd.WaitDelay = time.Second
	// Who has children takes them along on this signal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	exited := make(chan struct{})
	s.pid, s.cancel, s.exited, s.log = cmd.Process.Pid, cancel, exited, log
	killed := context.AfterFunc(ctx, func() { kill(processes(s.pid)) })
	go func() {
		defer close(exited)
		_ = cmd.Wait() // it is always killed; if it ends before, the log says why
		killed()
	}()
	if err := s.waitListening(ctx); err != nil {
		s.stop()
		return fmt.Errorf("start %s: %w\n%s", s.engine, err, s.log.Bytes())
	}
	return nil
}

// waitListening returns when all addresses take connections.
func (s *server) waitListening(ctx context.Context) error {
	deadline := time.After(startTimeout)
	for _, address := range []string{s.streamsAt, s.publishAt, s.adminAt} {
		for {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				_ = conn.Close()
				break
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-s.exited:
				return errors.New("it has exited")
			case <-deadline:
				return fmt.Errorf("it does not listen after %s: %w", startTimeout, err)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// stop kills the server and returns when it is gone.
func (s *server) stop() {
	s.cancel()
	<-s.exited
	for _, c := range s.closers {
		_ = c.Close()
	}
	s.closers = nil
}

// freeAddresses returns addresses that were free just now.
func freeAddresses(n int) ([]string, error) {
	var found []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // late, so that they differ
		found = append(found, l.Addr().String())
	}
	return found, nil
}
