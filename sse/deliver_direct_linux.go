package sse

import (
	"net"
	"net/http"
	"time"
)

// Direct takes the subscriber's stream out of the hands of its handler, which may
// return then, and reports whether it did: a few goroutines write to the sockets of
// all such streams, and one that is idle costs no goroutine, timer or buffer. It is
// the engine for HTTP/1.0 and 1.1 on Linux.
//
// The connection is that of the request, as the server's ConnContext got it: a
// TCP or Unix socket with at most TLS on top. w must be the response to that
// request, and no wrapper around it may change the body. Where that does not
// hold, or the system has no files left, Direct reports false, and the caller has
// [Subscriber.Stream] write the stream.
//
// The stream ends when the client leaves or the hub ends it, and no later than
// [Hub.Close]. The owner is told then.
func (s *Subscriber) Direct(w http.ResponseWriter, conn net.Conn, tuning *Tuning, owner Owner) (taken bool) {
	if _, ok := innermost(w).(http.Hijacker); !ok {
		return false
	}
	socket, err := takeSocket(conn)
	if err != nil {
		return false
	}
	s.tune(tuning)
	st := &directStream{subscriber: s, socket: socket, owner: owner}
	joined := false
	defer func() {
		if !joined { // be it that w has panicked
			st.socket.giveBack()
		}
	}()
	writer, err := s.hub.writer()
	if err != nil {
		return false
	}
	st.writer = writer
	if taken, err = st.begin(w); !taken {
		return false
	}
	if err != nil {
		s.hub.stats.closed.add(closeReasons, CloseClient)
		s.Leave()
		owner.Ended(End{Reason: CloseClient, Err: err, Bytes: st.bytes})
		return true
	}
	joined = true
	writer.join(st)
	return true
}

// A directStream is a stream of the direct engine. What is not guarded by the
// writer's lock belongs to whoever has taken the stream.
type directStream struct {
	subscriber *Subscriber
	writer     *writer
	owner      Owner
	socket     socket
	slot       uint32 // the poller's
	place      int32  // in writer.streams

	spare   *spare // nil if there is nothing of it
	began   int64  // when the stream began, on the writers' clock
	written int64  // when something was last written, on that clock
	events  uint64 // were written
	bytes   uint64
	over    bool // the peer has hung up
	silent  bool // a keepalive is due

	// Guarded by writer.mu.
	state directState
	again bool // woken, or writable, since the writer took it up
	gone  bool // over, as of now
	due   bool // silent, as of now
	next  *directStream
}

// A spare is what few streams need at a time.
type spare struct {
	rest batch // was pulled and did not fit into the socket
	err  error // why nothing more can be written
}

// A directState says who has a stream.
type directState uint8

const (
	directIdle    directState = iota // nobody: there is nothing to write
	directQueued                     // in a queue
	directTaken                      // the writer, or who reads the record for it
	directFull                       // nobody: its socket is full
	directStopped                    // nobody any more
)

// begin answers the request, and takes the connection from its server. If it does
// not report taken, the answer may have begun, and Stream goes on with it.
func (st *directStream) begin(w http.ResponseWriter) (taken bool, err error) {
	s := st.subscriber
	SetHeader(w.Header())
	// The body ends with the connection: it needs no framing, so that all
	// streams are sent the same bytes. It is net/http that understands this
	// and leaves it out of the answer.
	w.Header().Set("Transfer-Encoding", "identity")
	w.WriteHeader(http.StatusOK)
	s.answered = true
	controller := http.NewResponseController(w)
	n, err := w.Write(s.openFrame())
	st.bytes += uint64(n)
	if err == nil {
		err = controller.Flush()
	}
	w.Header().Del("Transfer-Encoding") // it was no field of the answer, and is logged as if
	if err != nil {
		return true, err
	}
	if w.Header().Get("Content-Encoding") != "" || isBuffered(w) {
		return false, nil
	}
	conn, _, err := controller.Hijack()
	if err != nil {
		return false, nil
	}
	if st.socket.tls == nil {
		_ = conn.Close() // the socket goes on
	}
	st.socket.tune()
	st.began = sinceStart()
	st.written = st.began
	return true, nil
}

// processStart is where the clock of the writers begins.
var processStart = time.Now()

func sinceStart() int64 { return int64(time.Since(processStart)) }

// isBuffered reports whether a wrapper keeps the answer back, as one does that may
// yet put another in its place.
func isBuffered(w http.ResponseWriter) bool {
	for {
		if b, ok := w.(interface{ Buffered() bool }); ok && b.Buffered() {
			return true
		}
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = wrapper.Unwrap()
	}
}
