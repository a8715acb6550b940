package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/sse"
)

// An openStream is what is known of a stream until it has ended. It holds nothing of
// the configuration in which it was opened, which it may outlive.
type openStream struct {
	seat
	route *route
	line  *streamLine // nil if it is Caddy that writes the access log, or nobody
}

// begin writes the beginning of the stream, and returns what writes the rest until
// it ends, nil if a hub's writers do that.
func (o *openStream) begin(s *Subscribe, w http.ResponseWriter, r *http.Request) (rest func()) {
	resume := o.stream.Resume()
	s.log.LogAttrs(r.Context(), slog.LevelDebug, "stream opened",
		slog.String("connection", o.stream.Connection()), slog.String("user", o.stream.User()), slog.Any("channels", o.stream.Channels()))
	if conn, ok := directConn(w, r); ok {
		line, undo := s.takeLine(w, r)
		if o.line = line; line != nil {
			line.resume = resume
		}
		if o.stream.Direct(w, conn, &o.route.tuning, o) {
			return nil
		}
		o.line = nil
		undo()
	}
	w, done := lean(w, r)
	begun := false
	defer func() {
		if !begun { // but panicked
			done()
		}
	}()
	open, ctx := o.stream.Open(r.Context(), w, &o.route.tuning), r.Context()
	begun = true
	return func() { // which needs little of the stack, see apart
		var end sse.End
		defer func() {
			done()
			addLogField(ctx, o.field(&end, resume))
			o.finish(&end) //nolint:contextcheck // it is over, and so is its context
		}()
		end = open.Serve()
	}
}

// Ended implements sse.Owner: a stream has ended that its handler has left.
func (o *openStream) Ended(end sse.End) {
	if o.line != nil {
		o.line.write(o.route.access.Load(), &end, o.field(&end, o.line.resume))
	}
	o.finish(&end)
}

// giveBack gives back what a stream took that does not begin. It may be called again.
func (o *openStream) giveBack() {
	if o.stream != nil {
		o.stream.Leave()
	}
	o.route.leave(&o.seat)
}

// finish tells of a stream that has ended, and gives back what it took.
func (o *openStream) finish(end *sse.End) {
	o.route.leave(&o.seat)
	attrs := []slog.Attr{
		slog.String("connection", o.stream.Connection()), slog.String("reason", string(end.Reason)),
		slog.Uint64("events", end.Events), slog.Uint64("bytes", end.Bytes), slog.Duration("duration", time.Since(o.stream.Opened())),
	}
	if end.Err != nil {
		attrs = append(attrs, slog.Any("error", end.Err))
	}
	o.route.log.Load().LogAttrs(context.Background(), slog.LevelDebug, "stream closed", attrs...)
}

// field is what the access log tells of a stream.
func (o *openStream) field(end *sse.End, resume sse.Resume) zap.Field {
	fields := []zap.Field{
		zap.String("hub", o.route.hub),
		zap.String("connection", o.stream.Connection()),
		zap.String("user", o.stream.User()),
		zap.String("resume", string(resume)),
		zap.Strings("channels", o.stream.Channels()), // which may have changed
		zap.String("reason", string(end.Reason)), zap.Uint64("events", end.Events), zap.Uint64("bytes", end.Bytes),
	}
	if end.Err != nil {
		fields = append(fields, zap.String("error", end.Err.Error()))
	}
	return zap.Dict("sse", fields...)
}

// streamOptions are the settings of the route's streams.
func (s *Subscribe) streamOptions() sse.StreamOptions {
	options := sse.StreamOptions{
		Keepalive: time.Duration(s.Keepalive),
		MaxAge:    time.Duration(s.MaxAge),
		Lag:       s.Limits.Lag,
	}
	if s.Slow == slowDisconnect {
		options.Slow = sse.SlowDisconnect
	}
	return options
}

// turnAway answers a client for whom there is no room, or not now.
func (s *Subscribe) turnAway(w http.ResponseWriter, why refusal, reason error) error {
	if s.hub.isOpen() {
		s.hub.current().CountRefusal()
	}
	if s.Overload == overload503 {
		return problemf(http.StatusServiceUnavailable, "%s", reason).with("Retry-After", "10").because(why)
	}
	s.hub.refused.add(why)
	s.log.Debug("turned a stream away", slog.String("reason", string(why)), slog.String("detail", reason.Error()))
	// The client may be gone already; there is nobody else to tell.
	_ = sse.Refuse(w)
	return nil
}

// errAway is what clients are told of a broker that is away. Where it is, and what it
// said, is for those who run it.
var errAway = fmt.Errorf("%w: it is away for the moment", sse.ErrUnavailable)

// forClients are the errors of a hub that are about what a client asks for, or about the
// hub itself. All others are the broker's.
var forClients = []error{
	sse.ErrDraining, sse.ErrClosed, sse.ErrNoConnection, sse.ErrChannel,
	sse.ErrChange, sse.ErrWithdrawn, sse.ErrOvertaken, sse.ErrChanging,
}

// discreet returns what a client may know of an error.
func (s *Subscribe) discreet(err error) error {
	if slices.ContainsFunc(forClients, func(known error) bool { return errors.Is(err, known) }) {
		return err
	}
	s.log.Debug("the broker does not do what a client asks for", slog.Any("error", err))
	return errAway
}

// refuseStream answers a client that the hub did not let in.
func (s *Subscribe) refuseStream(w http.ResponseWriter, err error) error {
	switch {
	case errors.Is(err, sse.ErrEnded):
		w.WriteHeader(http.StatusNoContent) // upon which an EventSource stops
		return nil
	case errors.Is(err, sse.ErrChannel): // nothing is left of what the connection had
		return problemf(http.StatusForbidden, "none of the channels is allowed any more").in("channel")
	case errors.Is(err, sse.ErrOvertaken): // which is nobody's overload
		s.hub.refused.add(refusedUnavailable)
		_ = sse.Refuse(w) // the client may be gone already
		return nil
	case errors.Is(err, sse.ErrConnection):
		return problemf(http.StatusForbidden, "another client has a stream of that connection open: make an id of your own, such as a random UUID, for each").in("connection")
	}
	return s.turnAway(w, refusedUnavailable, s.discreet(err))
}

// tooMany says of what there are as many streams as may be.
func (why refusal) tooMany(n int) error {
	what := map[refusal]string{
		refusedConnections: "this route has %d streams, as many as its limit of connections",
		refusedAddress:     "this address has %d streams on this route, as many as its limit per_ip",
		refusedUser:        "this user has %d streams on this route, as many as its limit per_user",
	}[why]
	if what == "" {
		return sse.ErrDraining
	}
	return fmt.Errorf(what, n)
}
