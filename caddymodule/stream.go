package caddymodule

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/sse"
)

// An opened stream is one that is to be written.
type opened struct {
	s                *Subscribe
	r                *http.Request
	subscriber       *sse.Subscriber
	open             *sse.OpenStream
	done             func() // with the writer
	connection, user string
	taken            *seat
	start            time.Time
	end              sse.End
}

// begin writes the beginning of the stream.
func (o *opened) begin(ctx context.Context, w http.ResponseWriter) {
	o.start = time.Now()
	o.s.log.LogAttrs(ctx, slog.LevelDebug, "stream opened",
		slog.String("connection", o.connection), slog.String("user", o.user), slog.Any("channels", o.subscriber.Channels()))
	w, o.done = lean(w, o.r)
	o.open = o.subscriber.Open(ctx, w, sse.NewTuning(o.s.streamOptions()))
}

// stream writes the rest until it ends. It needs little of the stack, see [apart].
func (o *opened) stream() {
	defer o.finish()
	o.end = o.open.Serve()
}

// finish tells the logs that the stream has ended.
func (o *opened) finish() {
	o.done()
	o.s.route.leave(o.taken)
	fields := []zap.Field{
		zap.String("hub", o.s.Hub),
		zap.String("connection", o.connection),
		zap.String("user", o.user),
		zap.String("resume", string(o.subscriber.Resume())),
		zap.Strings("channels", o.subscriber.Channels()), // which may have changed
		zap.String("reason", string(o.end.Reason)), zap.Uint64("events", o.end.Events), zap.Uint64("bytes", o.end.Bytes),
	}
	attrs := []slog.Attr{
		slog.String("connection", o.connection), slog.String("reason", string(o.end.Reason)),
		slog.Uint64("events", o.end.Events), slog.Uint64("bytes", o.end.Bytes), slog.Duration("duration", time.Since(o.start)),
	}
	if o.end.Err != nil {
		fields = append(fields, zap.String("error", o.end.Err.Error()))
		attrs = append(attrs, slog.Any("error", o.end.Err))
	}
	addLogField(o.r.Context(), zap.Dict("sse", fields...))
	o.s.log.LogAttrs(o.r.Context(), slog.LevelDebug, "stream closed", attrs...)
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
		s.hub.CountRefusal()
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
