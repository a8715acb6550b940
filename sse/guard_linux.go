package sse

import (
	"sync/atomic"
	"time"
)

// mostStall is how long a write over TLS may hold up a writer.
const mostStall = 250 * time.Millisecond

// A guard sees to it that no write over TLS holds up a writer for good. Such a
// write is made only where there is room for it, but the kernel may take that back
// when it is short of memory, and crypto/tls waits then.
type guard struct {
	writes atomic.Pointer[directStream] // the stream that may be written to now
	timer  *time.Timer
	set    bool // the timer runs; the writer's own
}

// setUp makes a guard ready. It must not be copied from then on.
func (g *guard) setUp() {
	g.timer = time.AfterFunc(mostStall, g.giveUp)
	g.timer.Stop()
}

// watch notes that a stream is about to be written to. Only the writer calls it.
func (g *guard) watch(st *directStream) {
	if g.writes.Store(st); !g.set {
		g.timer.Reset(mostStall)
		g.set = true
	}
}

// rest notes that the writer has written. Only the writer calls it.
func (g *guard) rest() {
	if g.set {
		g.timer.Stop()
		g.writes.Store(nil)
		g.set = false
	}
}

// giveUp ends the write that goes on, and with it the stream. Should that write
// have ended just now, its stream is given up at the next: its client comes back,
// as one does that was too slow.
func (g *guard) giveUp() {
	if st := g.writes.Load(); st != nil {
		_ = st.socket.tls.NetConn().SetWriteDeadline(time.Now())
		g.timer.Reset(mostStall) // there may be another one
	}
}
