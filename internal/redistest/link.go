package redistest

import (
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// A Link is a way to a server that can be cut.
type Link struct {
	// Socket is the path of the Unix socket at which it begins.
	Socket string

	listener net.Listener
	running  sync.WaitGroup

	mu    sync.Mutex // guards what follows
	deaf  bool       // answers are dropped
	conns map[net.Conn]struct{}
}

// NewLink returns a link to a server, which ends with the test.
func NewLink(t testing.TB, to *Server) *Link {
	t.Helper()
	l := &Link{Socket: filepath.Join(to.Dir, "link.sock"), conns: make(map[net.Conn]struct{})}
	var err error
	if l.listener, err = net.Listen("unix", l.Socket); err != nil {
		t.Fatal(err)
	}
	l.running.Go(func() {
		for {
			near, err := l.listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("unix", to.Socket)
			if err != nil {
				near.Close()
				continue
			}
			l.join(near, far)
		}
	})
	t.Cleanup(func() {
		l.listener.Close()
		l.Cut()
		l.running.Wait()
	})
	return l
}

func (l *Link) join(near, far net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[near], l.conns[far] = struct{}{}, struct{}{}
	end := func() { near.Close(); far.Close() }
	l.running.Go(func() {
		defer end()
		_, _ = io.Copy(far, near) // ends when either is closed
	})
	l.running.Go(func() {
		defer end()
		buf := make([]byte, 64<<10)
		for {
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			l.mu.Lock()
			deaf := l.deaf
			l.mu.Unlock()
			if deaf {
				continue
			}
			if _, err := near.Write(buf[:n]); err != nil {
				return
			}
		}
	})
}

// Deafen drops the answers from now on, of connections that are open and of new ones.
func (l *Link) Deafen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deaf = true
}

// Heal lets answers through again.
func (l *Link) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deaf = false
}

// Cut closes all connections.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.conns {
		conn.Close()
	}
	clear(l.conns)
}
