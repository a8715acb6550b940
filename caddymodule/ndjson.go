package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/sse"
)

// linesType is the type of a body whose lines are envelopes.
const linesType = "application/x-ndjson"

const (
	// answerTimeout is for how long a publisher may leave its answers unread.
	answerTimeout = 30 * time.Second
	// endGrace is how long publishing and answering may take when the server
	// wants to stop.
	endGrace = 5 * time.Second
	// quietTimeout replaces Caddy's limit for the gaps in a body: a publisher
	// that has nothing to say may be quiet. There is no infinite one.
	quietTimeout = 100 * 365 * 24 * time.Hour
)

// aLongTimeAgo is a deadline that has passed.
func aLongTimeAgo() time.Time { return time.Unix(1, 0) }

// A lineStream publishes the lines of a request and answers each, while the
// request stays open. Lines are read ahead, published together as far as they
// have come, and answered together.
type lineStream struct {
	requests *requests
	writer   http.ResponseWriter
	control  *http.ResponseController // of the writer
	request  *http.Request
	lines    *lineReader
	answers  []byte // reused
}

// publishLines answers a request whose body is lines.
func (q *requests) publishLines(w http.ResponseWriter, r *http.Request) error {
	if err := q.checkEnvelopes(r); err != nil {
		return err
	}
	if len(r.Header.Values(keyHeader)) > 0 {
		return problemf(http.StatusBadRequest, "%s is not possible with lines, which move up when only the rest is repeated; give each line an id", keyHeader).in(keyHeader)
	}
	s := &lineStream{
		requests: q, writer: w, control: http.NewResponseController(w), request: r,
		lines: newLineReader(r.Body, q.maxBody),
	}
	if err := s.begin(); err != nil {
		return err
	}
	if idle, _ := caddyhttp.IdleTimeoutsFromContext(r.Context()); idle != nil {
		defer idle.Override(quietTimeout, 0)()
	}
	q.hub.lineStreams.Add(1)
	defer q.hub.lineStreams.Add(-1)
	s.run(r.Context())
	return nil
}

// begin lifts the server's limit for the whole body and writes the header. Where
// the operator set one, it stays.
func (s *lineStream) begin() error {
	header := s.writer.Header()
	if s.request.ProtoMajor == 1 {
		if err := s.control.EnableFullDuplex(); err != nil {
			return problemf(http.StatusInternalServerError, "this server cannot answer while it reads: %s", err)
		}
		if s.request.Header.Get("Expect") != "" {
			s.writer.WriteHeader(http.StatusContinue) // before the final status, or never
		}
		// A body that was not read to its end must not be taken for the next
		// request.
		header.Set("Connection", "close")
	}
	_ = s.control.SetReadDeadline(time.Time{}) // where it fails there is none
	header.Set("Content-Type", linesType)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no")
	s.writer.WriteHeader(http.StatusOK)
	return nil
}

// run publishes until the body ends, the hub takes nothing any more, or the
// server wants to stop. Its goroutines have ended when it returns.
func (s *lineStream) run(ctx context.Context) {
	// A body that breaks off ends the request's own context, on HTTP/1.1, but
	// what was read before is published.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(s.lines.run)
	running.Go(func() { s.watch(done, cancel) })

	open := s.send(ctx, nil) == nil // the header alone
	for open {
		open = s.next(ctx)
	}
	whole := s.lines.abandon()
	if !whole {
		s.stopReading()
	}
	close(done)
	running.Wait()
	if !whole {
		s.linger()
	}
}

// watch stops reading when the server wants to stop, and what goes on in spite
// of it after a while. That is a broker or a client who takes too long.
func (s *lineStream) watch(done <-chan struct{}, cancel context.CancelFunc) {
	select {
	case <-done:
		return
	case <-s.requests.ending:
	}
	s.lines.stop()
	s.stopReading()
	control := http.NewResponseController(innermost(s.writer))
	ticker := time.NewTicker(endGrace)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			cancel()
			_ = control.SetWriteDeadline(aLongTimeAgo()) // the best that can be done
		}
	}
}

// stopReading makes a read of the body fail that has begun or follows.
func (s *lineStream) stopReading() {
	if s.control.SetReadDeadline(aLongTimeAgo()) != nil {
		_ = s.request.Body.Close() // the other way, which HTTP/1.1 would block on
	}
}

// linger has net/http wait a little before it closes an HTTP/1.1 connection on
// which there is more to read. The reset that this causes could otherwise
// outrun the last answers. A limit that is exceeded is how one tells it.
func (s *lineStream) linger() {
	exceeded := http.MaxBytesReader(innermost(s.writer), io.NopCloser(strings.NewReader("x")), 0)
	_, _ = io.ReadAll(exceeded) // it fails, as it must
}

// innermost returns the server's own writer, whose deadlines may be set while
// another goroutine writes. Those of Caddy's wrappers may not.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = wrapper.Unwrap()
	}
}

// next publishes and answers the lines that have come, and reports whether
// there may be more.
func (s *lineStream) next(ctx context.Context) bool {
	lines := s.lines.take()
	more := len(lines) > 0
	for more && len(lines) > 0 {
		n := s.pace(ctx, len(lines))
		if n == 0 {
			return false
		}
		more = s.publish(ctx, lines[:n])
		lines = lines[n:]
	}
	return more
}

// publish publishes and answers lines, and reports whether more can be.
func (s *lineStream) publish(ctx context.Context, lines []line) bool {
	if expired := s.requests.grants.current(); expired != nil {
		_ = s.answer(ctx, s.requests.refuse(lines, asProblem(expired)))
		return false
	}
	answers, available := s.requests.publishBatch(ctx, lines)
	return s.answer(ctx, answers) == nil && available
}

// pace returns how many of the lines may be published, and waits until one may.
// Who sends them faster than its rate is slowed down, since it cannot be told to
// come back later. It is none if there is no time left.
func (s *lineStream) pace(ctx context.Context, lines int) int {
	bucket := s.requests.bucket
	if bucket == nil {
		return lines
	}
	n := min(lines, bucket.Burst(), max(1, int(bucket.Tokens())))
	if bucket.WaitN(ctx, n) != nil {
		return 0
	}
	return n
}

// refuse gives lines one answer.
func (q *requests) refuse(lines []line, p *problem) []lineAnswer {
	answers := make([]lineAnswer, len(lines))
	for i := range answers {
		own := *p
		own.Line = lines[i].number
		answers[i].problem = &own
		q.hub.refused.add(own.refusal())
	}
	return answers
}

// A lineAnswer is a problem or, if there is none, a receipt.
type lineAnswer struct {
	problem *problem
	receipt sse.Receipt
}

// publishBatch publishes lines together and returns an answer for each. It
// reports whether the hub goes on taking events.
func (q *requests) publishBatch(ctx context.Context, lines []line) (answers []lineAnswer, available bool) {
	answers = make([]lineAnswer, len(lines))
	events := make([]sse.Event, 0, len(lines))
	of := make([]*lineAnswer, 0, len(lines))
	for i, l := range lines {
		e, err := q.parse(l)
		if err != nil {
			answers[i].problem = asProblem(err)
			continue
		}
		events, of = append(events, e), append(of, &answers[i])
	}
	available = q.publishEach(ctx, events, of)
	for i := range answers {
		if p := answers[i].problem; p != nil {
			own := *p // several lines may have one problem in common
			own.Line = lines[i].number
			answers[i].problem = &own
			q.hub.refused.add(own.refusal())
		}
	}
	return answers, available
}

// parse returns the event of a line, if it may be published.
func (q *requests) parse(l line) (sse.Event, error) {
	if l.refused != nil {
		return sse.Event{}, l.refused
	}
	e, err := parseLine(l.text)
	if err == nil {
		err = q.check(&e)
	}
	return e, err
}

// publishEach publishes events in as few calls as it can, without those that
// are refused, and gives each its answer: the same as if they had been
// published one after the other. It reports whether the hub goes on taking
// events; if not, it has taken none after the first that it did not take.
func (q *requests) publishEach(ctx context.Context, events []sse.Event, answers []*lineAnswer) (available bool) {
	n := len(events) // how many to try
	for len(events) > 0 {
		receipts, err := q.hub.current().Publish(ctx, events[:n]...)
		i, refused := refusedIndex(err)
		switch {
		case err == nil:
			for i, receipt := range receipts {
				answers[i].receipt = receipt
			}
			events, answers = events[n:], answers[n:]
			n = len(events)
		case !refused:
			for _, answer := range answers {
				answer.problem = publishProblem(err)
			}
			return false
		case i > 0 && endedAmong(err):
			n = i // those before it go first, and end its channel
		default:
			answers[i].problem = publishProblem(err)
			events, answers = slices.Delete(events, i, i+1), slices.Delete(answers, i, i+1)
			if n--; n == 0 {
				n = len(events)
			}
		}
	}
	return true
}

// endedAmong reports whether an event was refused because another of the same
// publish ends its channel.
func endedAmong(err error) bool {
	var ended *sse.EndedError
	return errors.As(err, &ended) && ended.At.IsZero()
}

// answer sends the answers.
func (s *lineStream) answer(ctx context.Context, answers []lineAnswer) error {
	s.answers = s.answers[:0]
	for _, a := range answers {
		var value any = receiptOf(a.receipt)
		if a.problem != nil {
			value = a.problem
		}
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		s.answers = append(append(s.answers, text...), '\n')
	}
	return s.send(ctx, s.answers)
}

// send writes and flushes, unless the time for answers is over.
func (s *lineStream) send(ctx context.Context, text []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// Where a deadline cannot be set, the server has its own.
	_ = s.control.SetWriteDeadline(time.Now().Add(answerTimeout))
	if _, err := s.writer.Write(text); err != nil {
		return err
	}
	if err := s.control.Flush(); err != nil {
		return err
	}
	// Over HTTP/2 it would end the stream even if nothing is written.
	_ = s.control.SetWriteDeadline(time.Time{})
	return nil
}
