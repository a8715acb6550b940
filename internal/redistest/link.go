package redistest

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// A Link is a way to a server that can be cut. There may be several to one server.
type Link struct {
	// Socket is the path of the Unix socket at which it begins.
	Socket string

	listener net.Listener
	running  sync.WaitGroup

	mu    sync.Mutex // guards what follows
	deaf  bool       // answers are dropped
	down  bool       // no connection can be made
	conns map[net.Conn]struct{}
}

// NewLink returns a link to a server, which ends with the test.
func NewLink(t testing.TB, to *Server) *Link {
	t.Helper()
	l := &Link{Socket: filepath.Join(to.Dir, fmt.Sprintf("link-%d.sock", to.links.Add(1))), conns: make(map[net.Conn]struct{})}
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

// URL returns the address of the link's beginning.
func (l *Link) URL() string { return "unix://" + l.Socket }

func (l *Link) join(near, far net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		near.Close()
		far.Close()
		return
	}
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

// Sever closes all connections, and keeps new ones from being made.
func (l *Link) Sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	l.cut()
}

// Heal undoes what was done to the link. Connections that were deaf are closed: of those
// that there are, no network would drop some answers and bring others.
func (l *Link) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deaf {
		l.cut()
	}
	l.deaf, l.down = false, false
}

// Cut closes all connections.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut()
}

func (l *Link) cut() {
	for conn := range l.conns {
		conn.Close()
	}
	clear(l.conns)
}
