package caddymodule

import (
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A leanWriter writes the body of a stream to the server's own response writer,
// below what Caddy and its handlers put around it, once the first flush has taken
// the head and what was written with it through all of these. Over HTTP/2, Caddy
// updates a deadline four times for each write and flush, by a message to the
// connection's goroutine and a new timer each: eight of the nine allocations of a
// delivery. In their place, a sweep finds from time to time who has not read for too
// long.
//
// What stands around does not see the rest of the body: Caddy's recorders count
// fewer bytes, and the access log has them from [sse.End].
type leanWriter struct {
	http.ResponseWriter // what the handler was given
	whole               *http.ResponseController

	inner   http.ResponseWriter
	flusher *http.ResponseController // of inner
	lean    bool                     // inner is written to

	// timeout is how long a client may take for one write of at most chunk
	// bytes; zero is for ever.
	timeout time.Duration
	chunk   int
	// began is when the write began that is going on, Unix time in
	// nanoseconds; zero if there is none, and wasCut from when it was given up.
	began atomic.Int64
}

const wasCut = -1

// lean returns a writer for a stream's body, which is the given one where that
// gains nothing or may not be passed by, and what must be called before the handler
// returns.
func lean(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, func()) {
	if r.ProtoMajor < 2 || boundsAnswers(r) {
		return w, func() {}
	}
	l := newLeanWriter(w)
	if l == nil {
		return w, func() {}
	}
	leanWriters.add(l)
	return l, func() { leanWriters.remove(l) }
}

// newLeanWriter returns a writer that becomes lean if it may, nil if it may not:
// only what is known to leave a stream's body as it is may be passed by.
func newLeanWriter(w http.ResponseWriter) *leanWriter {
	lean := &leanWriter{ResponseWriter: w, whole: http.NewResponseController(w), chunk: caddyhttp.DefaultMaxWriteChunk}
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		if idle, ok := w.(*caddyhttp.IdleTimeoutWriter); ok {
			if idle.Deadline.MinRate > 0 || !idle.Deadline.HardDeadline.IsZero() {
				return nil // it does more than a sweep does
			}
			lean.timeout = idle.Deadline.Timeout
			if idle.MaxChunk > 0 {
				lean.chunk = idle.MaxChunk
			}
		} else if !isCaddys(w) {
			return nil
		}
		w = wrapper.Unwrap()
	}
	lean.inner, lean.flusher = w, http.NewResponseController(w)
	return lean
}

// isCaddys reports whether a wrapper is one of Caddy's own or of net/http.
func isCaddys(w http.ResponseWriter) bool {
	t := reflect.TypeOf(w)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	path := t.PkgPath() + "/"
	return path == "net/http/" || strings.HasPrefix(path, "github.com/caddyserver/caddy/v2/")
}

// Write implements http.ResponseWriter.
func (l *leanWriter) Write(p []byte) (n int, err error) {
	if !l.lean {
		return l.ResponseWriter.Write(p)
	}
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), l.chunk)]
		l.begin()
		var written int
		written, err = l.inner.Write(part)
		err = l.end(err)
		n += written
		p = p[written:]
	}
	return n, err
}

// FlushError is what [http.ResponseController] flushes by.
func (l *leanWriter) FlushError() error {
	if l.lean {
		l.begin()
		return l.end(l.flusher.Flush())
	}
	err := l.whole.Flush()
	if err == nil && l.unchanged() {
		// The deadline of what was written so far would cut what comes later. If
		// there are none, nothing is there to be passed by.
		l.lean = l.flusher.SetWriteDeadline(time.Time{}) == nil
	}
	return err
}

// unchanged reports whether nobody holds the body back or encodes it, which can
// be told when the head was written.
func (l *leanWriter) unchanged() bool {
	for w := l.ResponseWriter; ; {
		if buffer, ok := w.(interface{ Buffered() bool }); ok && buffer.Buffered() {
			return false
		}
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w.Header().Get("Content-Encoding") == ""
		}
		w = wrapper.Unwrap()
	}
}

// Unwrap is for [http.ResponseController].
func (l *leanWriter) Unwrap() http.ResponseWriter { return l.ResponseWriter }

// begin notes that a write begins.
func (l *leanWriter) begin() {
	if l.timeout > 0 {
		l.began.CompareAndSwap(0, time.Now().UnixNano())
	}
}

// end notes that it has ended, and returns its error. A stream that was given up is
// lost, even if its client took the last of it at that moment.
func (l *leanWriter) end(err error) error {
	if l.timeout > 0 && l.began.Swap(0) == wasCut {
		l.began.Store(wasCut)
		return fmt.Errorf("the client took nothing for %s: %w", l.timeout, os.ErrDeadlineExceeded)
	}
	return err
}

// cut gives the stream up if its client has not taken a write for too long.
func (l *leanWriter) cut(now time.Time) {
	began := l.began.Load()
	if began > 0 && now.UnixNano()-began > int64(l.timeout) && l.began.CompareAndSwap(began, wasCut) {
		// The error is that of a connection that has broken meanwhile.
		_ = l.flusher.SetWriteDeadline(now)
	}
}
