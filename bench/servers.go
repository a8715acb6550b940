//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// engines are the servers that are compared. The first is the floor to which
// the others are in proportion.
var engines = []string{"loop", "caddy", "naive"}

// A plan says which server to start.
type plan struct {
	engine string
	caddy  string // its program
	hub    string // the options of Caddy's hub, lines of a Caddyfile; empty for the defaults
}

// A server is one engine in a process of its own.
type server struct {
	plan
	pid int
	// Addresses of the event streams, of the publish endpoint, and of
	// net/http/pprof.
	streamsAt, publishAt, adminAt string

	cancel context.CancelFunc
	exited chan struct{}
	log    *bytes.Buffer // to be read when it has exited
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
	s := &server{plan: p, streamsAt: addresses[0], publishAt: addresses[1], adminAt: addresses[2]}
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
	ctx, cancel := context.WithCancel(ctx)
	cmd, err := s.command(ctx)
	if err != nil {
		cancel()
		return err
	}
	log := new(bytes.Buffer)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		cancel()
		return err
	}
	exited := make(chan struct{})
	s.pid, s.cancel, s.exited, s.log = cmd.Process.Pid, cancel, exited, log
	go func() {
		defer close(exited)
		_ = cmd.Wait() // it is always killed; if it ends before, the log says why
	}()
	if err := s.waitListening(ctx); err != nil {
		s.stop()
		return fmt.Errorf("start %s: %w\n%s", s.engine, err, s.log.Bytes())
	}
	return nil
}

func (s *server) command(ctx context.Context) (*exec.Cmd, error) {
	if s.engine != "caddy" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		s.adminAt = s.publishAt
		return exec.CommandContext(ctx, self, s.engine, s.streamsAt, s.publishAt), nil
	}
	dir := filepath.Dir(s.caddy)
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, fmt.Appendf(nil, caddyfile, s.adminAt, s.hub, s.streamsAt, s.publishAt), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, s.caddy, "run", "--config", file)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	return cmd, nil
}

// caddyfile has the defaults wherever they are not in the way.
const caddyfile = `{
	admin %s
	persist_config off
	sse {
		%s
	}
}
http://%s {
	bind 127.0.0.1
	sse /events* {
		allow *
	}
}
http://%s {
	bind 127.0.0.1
	sse_api /sse* {
		unauthenticated
	}
}
`

// buildCaddy builds the Caddy that is measured, and returns its path.
func buildCaddy(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "caddy")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "./cmd/caddy")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build ../cmd/caddy (run this in the directory bench): %w\n%s", err, out)
	}
	return path, nil
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
