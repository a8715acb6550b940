package caddymodule

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/sse"
)

// stream writes a stream until it ends, and tells the logs.
func (s *Subscribe) stream(w http.ResponseWriter, r *http.Request, subscriber *sse.Subscriber, want sse.SubscribeOptions) {
	start := time.Now()
	fields := []zap.Field{
		zap.String("hub", s.Hub),
		zap.String("connection", want.Connection),
		zap.String("user", want.User),
		zap.String("resume", string(subscriber.Resume())),
	}
	s.log.LogAttrs(r.Context(), slog.LevelDebug, "stream opened",
		slog.String("connection", want.Connection), slog.String("user", want.User), slog.Any("channels", subscriber.Channels()))

	w, done := lean(w, r)
	end := subscriber.Stream(r.Context(), w, sse.NewTuning(s.streamOptions()))
	done()

	fields = append(fields, zap.Strings("channels", subscriber.Channels()), // which may have changed
		zap.String("reason", string(end.Reason)), zap.Uint64("events", end.Events), zap.Uint64("bytes", end.Bytes))
	attrs := []slog.Attr{
		slog.String("connection", want.Connection), slog.String("reason", string(end.Reason)),
		slog.Uint64("events", end.Events), slog.Uint64("bytes", end.Bytes), slog.Duration("duration", time.Since(start)),
	}
	if end.Err != nil {
		fields = append(fields, zap.String("error", end.Err.Error()))
		attrs = append(attrs, slog.Any("error", end.Err))
	}
	addLogField(r.Context(), zap.Dict("sse", fields...))
	s.log.LogAttrs(r.Context(), slog.LevelDebug, "stream closed", attrs...)
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
