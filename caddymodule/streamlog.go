package caddymodule

import (
	"context"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A streamLine is the line of the access log for a stream that outlives its
// handler, written when it ends: Caddy would write one when the handler returns,
// without the bytes and the time that the stream took. It holds nothing of the
// configuration that the stream was opened in.
type streamLine struct {
	loggers []string
	level   zapcore.Level
	request caddyhttp.LoggableHTTPRequest
	header  caddyhttp.LoggableHTTPHeader
	user    string
	start   time.Time
	resume  sse.Resume
}

// takeLine has the line of a request written when its stream has ended, not now. It
// returns nil if there is none to write. Undo leaves it to whoever would have
// written it.
func (s *Subscribe) takeLine(w http.ResponseWriter, r *http.Request) (line *streamLine, undo func()) {
	ctx := r.Context()
	of, _ := ctx.Value(accessLineKey{}).(*accessLine)
	if of == nil {
		of = newAccessLine(ctx, s.access, w, r)
		undo = func() { caddyhttp.SetVar(ctx, caddyhttp.LogSkipVar, nil) }
	} else {
		of.left = true
		undo = func() { of.left = false }
	}
	if of == nil {
		return nil, func() {}
	}
	return of.outlast(w.Header()), undo //nolint:contextcheck // it outlives the request
}

// outlast returns what is written at the end of a stream, the header of which is
// that of the answer.
func (l *accessLine) outlast(header http.Header) *streamLine {
	from := l.request
	ctx := context.Background()
	if ip := caddyhttp.GetVar(l.ctx, caddyhttp.ClientIPVarKey); ip != nil {
		ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, map[string]any{caddyhttp.ClientIPVarKey: ip})
	}
	request := &http.Request{
		RemoteAddr: from.RemoteAddr, Proto: from.Proto, Method: from.Method, Host: from.Host,
		RequestURI: from.RequestURI, Header: from.Header, TransferEncoding: from.TransferEncoding, TLS: from.TLS,
	}
	credentials := l.server.Logs.ShouldLogCredentials
	return &streamLine{
		loggers: l.loggers(),
		level:   l.level(),
		request: caddyhttp.LoggableHTTPRequest{Request: request.WithContext(ctx), ShouldLogCredentials: credentials},
		header:  caddyhttp.LoggableHTTPHeader{Header: header, ShouldLogCredentials: credentials},
		user:    l.user(),
		start:   l.start,
	}
}

// write writes the line by the logger of the newest configuration.
func (l *streamLine) write(log *zap.Logger, end *sse.End, field zap.Field) {
	writeTo(log, l.loggers, l.level, func() []zap.Field {
		return []zap.Field{
			zap.Object("request", l.request),
			zap.Int("bytes_read", 0),
			zap.String("user_id", l.user),
			zap.Duration("duration", time.Since(l.start)),
			zap.Uint64("size", end.Bytes),
			zap.Int("status", http.StatusOK),
			zap.Object("resp_headers", l.header),
			field,
		}
	})
}
