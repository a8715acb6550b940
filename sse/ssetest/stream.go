package ssetest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

const (
	// DefaultTimeout is how long a [Stream] waits for anything at all.
	DefaultTimeout = 10 * time.Second

	// queueSize is how many frames a Stream takes from the connection before
	// the test asks for them. After that it stops reading, as a slow client does.
	queueSize = 16

	// historySize is how many frames a failure shows.
	historySize = 20
)

// A Stream is one open event stream, as a test sees it. What the server sends
// is seen in order, frame by frame: messages, comments, and blocks without data
// that move the last event ID. Methods that wait for one kind say what they do
// about the others.
//
// A test that asks for less than the server sends is a slow client: beyond 16
// frames the Stream leaves them on the connection.
//
// All methods but Close must be called on the goroutine that runs the test: they
// are not safe for concurrent use, and fail it with t.Fatal. The zero value is
// not usable; call [Open].
type Stream struct {
	// Response is the server's answer. Its body belongs to the Stream.
	Response *http.Response

	// Proto is the protocol of the answer, such as "HTTP/1.1" or "HTTP/2.0".
	Proto string

	// Timeout is how long one call waits; zero is [DefaultTimeout]. Set it
	// between calls.
	Timeout time.Duration

	t      testing.TB
	cancel context.CancelFunc
	frames chan frame // closed by the reader, after it has set err
	err    error      // why the stream ended, nil if cleanly; read it after frames is closed

	// What the test has taken.
	last  frame   // the latest, whose state is that of the stream
	count int     // how many
	seen  []frame // the latest, for failures
}

type frameKind string

const (
	messageFrame frameKind = "message"
	commentFrame frameKind = "comment"
	cursorFrame  frameKind = "id"  // a block without data that moved the last event ID
	endFrame     frameKind = "end" // never sent: what the closed queue stands for
)

// A frame is what the reader passes on, with the state of the decoder then.
type frame struct {
	kind     frameKind
	message  sse.Message
	comment  string
	lastID   string
	retry    time.Duration
	hasRetry bool
}

func (f frame) String() string {
	switch f.kind {
	case messageFrame:
		return fmt.Sprintf("message %q, id %q, data %.300q", f.message.Event, f.message.ID, f.message.Data)
	case commentFrame:
		return fmt.Sprintf("comment %q", f.comment)
	case cursorFrame:
		return fmt.Sprintf("id %q without data", f.lastID)
	case endFrame:
	}
	return "end"
}

// Open sends a GET for url, with header (may be nil) and Accept:
// text/event-stream, and returns the stream once the server's headers are there,
// for which it waits DefaultTimeout. The test fails at once unless the answer is
// 200 with the type text/event-stream. Nil for client is http.DefaultClient; a
// client with a Timeout cuts the stream off then.
//
// The stream is closed when the test ends, if [Stream.Close] has not been called.
func Open(t testing.TB, client *http.Client, url string, header http.Header) *Stream {
	t.Helper()
	if client == nil {
		client = http.DefaultClient
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &Stream{t: t, cancel: cancel, frames: make(chan frame, queueSize)}
	s.Response = s.get(ctx, client, url, header)
	s.Proto = s.Response.Proto
	t.Cleanup(s.Close)
	go s.read(ctx)
	return s
}

func (s *Stream) get(ctx context.Context, client *http.Client, url string, header http.Header) *http.Response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		s.t.Fatalf("ssetest: %v", err)
	}
	if header != nil {
		req.Header = header.Clone()
	}
	req.Header.Set("Accept", "text/event-stream")

	timer := time.AfterFunc(DefaultTimeout, s.cancel)
	resp, err := client.Do(req)
	if !timer.Stop() {
		err = fmt.Errorf("no headers within %v", DefaultTimeout)
	}
	if err != nil {
		s.cancel()
		s.t.Fatalf("ssetest: GET %s: %v", url, err)
	}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode != http.StatusOK || mediaType != "text/event-stream" {
		time.AfterFunc(DefaultTimeout, s.cancel) // a body need not end
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 2<<10))
		resp.Body.Close()
		s.cancel()
		s.t.Fatalf("ssetest: GET %s: got %s with Content-Type %q, want 200 with text/event-stream; body: %s",
			url, resp.Status, resp.Header.Get("Content-Type"), body)
	}
	return resp
}

// read is the Stream's goroutine. Close ends it by canceling ctx, which breaks
// off both what it can wait for: the connection and the test.
func (s *Stream) read(ctx context.Context) {
	defer close(s.frames)
	defer s.Response.Body.Close()

	var d *sse.Decoder
	lastID := ""
	send := func(f frame) error {
		f.lastID = d.LastEventID()
		f.retry, f.hasRetry = d.Retry()
		lastID = f.lastID
		select {
		case s.frames <- f:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	// The decoder returns for messages only. To see every move of the last
	// event ID besides, it is given a line at a time, and looked at in between.
	d = sse.NewDecoder(&lineReader{r: bufio.NewReader(s.Response.Body), before: func() error {
		if d.LastEventID() == lastID {
			return nil
		}
		return send(frame{kind: cursorFrame})
	}})
	d.OnComment(func(text string) {
		_ = send(frame{kind: commentFrame, comment: text}) // fails when canceled, and so will the next read
	})
	for {
		m, err := d.Decode()
		if err == nil {
			err = send(frame{kind: messageFrame, message: m})
		}
		if err != nil {
			if err != io.EOF {
				s.err = err
			}
			return
		}
	}
}

// A lineReader reads no further than the next CR or LF, and calls before before
// each read.
type lineReader struct {
	r      *bufio.Reader
	before func() error
}

func (l *lineReader) Read(p []byte) (int, error) {
	if err := l.before(); err != nil {
		return 0, err
	}
	if _, err := l.r.Peek(1); err != nil {
		return 0, err
	}
	line, _ := l.r.Peek(min(l.r.Buffered(), len(p))) // no error: it is buffered
	if i := bytes.IndexAny(line, "\r\n"); i >= 0 {
		line = line[:i+1]
	}
	return l.r.Discard(copy(p, line))
}

// Next returns the next message. Comments and moves of the last event ID before
// it are passed over.
func (s *Stream) Next() sse.Message {
	s.t.Helper()
	return s.await("a message", func(f frame) bool { return f.kind == messageFrame }).message
}

// Expect is [Stream.Next] for a message of that name; others fail the test. The
// default name is "message".
func (s *Stream) Expect(event string) sse.Message {
	s.t.Helper()
	what := fmt.Sprintf("a message %q", event)
	return s.await(what, func(f frame) bool { return f.kind == messageFrame && f.message.Event == event }).message
}

// NextComment returns the text of the next comment. A message before it fails
// the test, for it would be lost.
func (s *Stream) NextComment() string {
	s.t.Helper()
	return s.await("a comment", func(f frame) bool { return f.kind == commentFrame }).comment
}

// ExpectID returns once the last event ID is id: at once if it is, else when a
// block without data moves it there. A message before that fails the test.
func (s *Stream) ExpectID(id string) {
	s.t.Helper()
	if s.last.lastID != id {
		s.await(fmt.Sprintf("id %q without data", id), func(f frame) bool { return f.kind == cursorFrame && f.lastID == id })
	}
}

// End waits until the server ends the stream. It returns nil if it did so
// cleanly, else the error, which after [Stream.Close] is context.Canceled,
// wrapped. A message before that fails the test; comments do not.
func (s *Stream) End() error {
	s.t.Helper()
	s.await("the end of the stream", func(f frame) bool { return f.kind == endFrame })
	return s.err
}

// Close ends the stream from this side and returns when its goroutine has ended;
// frames not asked for are dropped. It does not fail the test, may be called
// more than once, and concurrently with the other methods.
func (s *Stream) Close() {
	s.cancel()
	for range s.frames {
		// Until the reader closes it.
	}
}

// LastEventID returns the last event ID as of the latest frame that the test was
// given or passed over: what a browser would present if the connection broke
// there. Frames still queued do not count. After NextComment, use ExpectID: the
// id of the same block comes after the comment.
func (s *Stream) LastEventID() string { return s.last.lastID }

// Retry returns the reconnection time as of the same frame as LastEventID, and
// whether the server has sent one.
func (s *Stream) Retry() (time.Duration, bool) { return s.last.retry, s.last.hasRetry }

// await takes frames until one is wanted, for Timeout in all. An unwanted
// message or end of the stream fails the test.
func (s *Stream) await(what string, wanted func(frame) bool) frame {
	s.t.Helper()
	timeout := s.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		select {
		case f, ok := <-s.frames:
			if ok {
				s.note(f)
			} else {
				f.kind = endFrame
			}
			switch {
			case wanted(f):
				return f
			case f.kind == endFrame:
				s.fatalf("the stream ended (error: %v) where %s was awaited", s.err, what)
			case f.kind == messageFrame:
				s.fatalf("got %v where %s was awaited", f, what)
			}
		case <-timer.C:
			s.fatalf("waited %v for %s", timeout, what)
		}
	}
}

func (s *Stream) note(f frame) {
	s.last = f
	s.count++
	if len(s.seen) == historySize {
		s.seen = append(s.seen[:0], s.seen[1:]...)
	}
	s.seen = append(s.seen, f)
}

func (s *Stream) fatalf(format string, args ...any) {
	s.t.Helper()
	var text strings.Builder
	for _, f := range s.seen {
		fmt.Fprintf(&text, "\n\t%v", f)
	}
	s.t.Fatalf("ssetest: %s; frames so far: %d, the latest:%s", fmt.Sprintf(format, args...), s.count, &text)
}
