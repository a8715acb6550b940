package caddymodule

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// An accessLine is a line of the access log that is written in place of
// Caddy's. Caddy makes a copy of the request for its own line before any handler
// runs, and nothing can change what that says, so it must be left out; whether
// it would have been written, by which loggers, at which level and with which
// fields is told here by the same rules.
//
// Two things differ. Fields that handlers around this one add are missing, and
// what such a handler does to the response after it was answered here, as
// `encode` does at its end, is not yet in the size.
type accessLine struct {
	ctx       context.Context
	log       *zap.Logger
	server    *caddyhttp.Server
	request   *http.Request // without the token
	recorders []caddyhttp.ResponseRecorder
	start     time.Time
	body      *countedBody
	extra     []zap.Field
	left      bool // it is written when a stream has ended, as a streamLine
}

// accessLineKey is the key of an *accessLine in a request's context.
type accessLineKey struct{}

// accessLogger returns what Caddy writes the access log by.
func accessLogger(ctx caddy.Context) *zap.Logger {
	return ctx.Logger(new(caddyhttp.App)).Named("log.access")
}

// newAccessLine has Caddy leave out its line for a request, and returns the one to
// write instead, nil if there would have been none. It counts what is read of
// the body from now on.
func newAccessLine(ctx context.Context, log *zap.Logger, w http.ResponseWriter, r *http.Request) *accessLine {
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	recorders := recordersOf(w)
	skip, _ := caddyhttp.GetVar(ctx, caddyhttp.LogSkipVar).(bool)
	if server == nil || len(recorders) == 0 || skip || !logsRequest(server.Logs, r.Host) {
		return nil
	}
	caddyhttp.SetVar(ctx, caddyhttp.LogSkipVar, true)
	line := &accessLine{ctx: ctx, log: log, server: server, recorders: recorders, start: time.Now()}
	if start, ok := caddyhttp.GetVar(ctx, "start_time").(time.Time); ok {
		line.start = start // of the whole request
	}
	line.request = r.Clone(ctx)
	if original, ok := ctx.Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		line.request.Method = original.Method
		line.request.RequestURI = original.RequestURI
		line.request.RemoteAddr = original.RemoteAddr
	}
	if r.Body != nil && r.Body != http.NoBody {
		line.body = &countedBody{ReadCloser: r.Body}
		r.Body = line.body
	}
	return line
}

// clean takes a parameter's value out of the line. On nil it does nothing.
func (l *accessLine) clean(cleaner parameterCleaner) {
	if l == nil {
		return
	}
	l.request.RequestURI = cleaner.inURI(l.request.RequestURI)
	for i, referer := range l.request.Header["Referer"] {
		l.request.Header["Referer"][i] = cleaner.inURI(referer)
	}
}

// recordersOf returns the recorders around a response. The last is that which
// the server itself put there; those of handlers are around it.
func recordersOf(w http.ResponseWriter) (found []caddyhttp.ResponseRecorder) {
	for {
		if recorder, ok := w.(caddyhttp.ResponseRecorder); ok {
			found = append(found, recorder)
		}
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return found
		}
		w = wrapper.Unwrap()
	}
}

// response returns the recorder nearest to the client that has seen the
// response: a handler may keep it back until later.
func (l *accessLine) response() caddyhttp.ResponseRecorder {
	for _, recorder := range slices.Backward(l.recorders) {
		if recorder.Status() != 0 {
			return recorder
		}
	}
	return l.recorders[len(l.recorders)-1]
}

// logsRequest reports whether the server logs requests to a host.
func logsRequest(logs *caddyhttp.ServerLogConfig, host string) bool {
	if logs == nil {
		return false
	}
	host = withoutPort(host)
	for name := range logs.LoggerNames {
		if certmagic.MatchWildcard(host, name) {
			return true
		}
	}
	for _, skipped := range logs.SkipHosts {
		if certmagic.MatchWildcard(host, skipped) {
			return false
		}
	}
	return !logs.SkipUnmappedHosts
}

func withoutPort(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return host
}

// write writes the line. On nil it does nothing.
func (l *accessLine) write() {
	if l == nil || l.left {
		return
	}
	writeTo(l.log, l.loggers(), l.level(), l.fields)
}

// writeTo writes a line to those of the loggers that want it.
func writeTo(log *zap.Logger, names []string, level zapcore.Level, all func() []zap.Field) {
	var fields []zap.Field
	for _, name := range names {
		logger := log
		if name != "" {
			logger = logger.Named(name)
		}
		entry := logger.Check(level, "handled request")
		if entry == nil {
			continue
		}
		if fields == nil {
			fields = all()
		}
		entry.Write(fields...)
	}
}

// loggers returns the names of the loggers that the line goes to, empty for that
// of the server.
func (l *accessLine) loggers() []string {
	if given, ok := caddyhttp.GetVar(l.ctx, caddyhttp.AccessLoggerNameVarKey).([]any); ok {
		names := make([]string, len(given))
		for i, name := range given {
			names[i], _ = name.(string)
		}
		return names
	}
	host := strings.ToLower(withoutPort(l.request.Host))
	if names, ok := l.server.Logs.LoggerNames[host]; ok {
		return names
	}
	labels := strings.Split(host, ".")
	for i := range labels {
		if labels[i] == "" {
			continue
		}
		labels[i] = "*"
		if names, ok := l.server.Logs.LoggerNames[strings.Join(labels, ".")]; ok {
			return names
		}
	}
	return []string{l.server.Logs.DefaultLoggerName}
}

func (l *accessLine) level() zapcore.Level {
	if name, ok := caddyhttp.GetVar(l.ctx, caddyhttp.LogLevelVar).(string); ok {
		level, err := zapcore.ParseLevel(name)
		if err == nil && level >= zapcore.DebugLevel && level <= zapcore.ErrorLevel {
			return level
		}
	}
	if l.response().Status() >= http.StatusInternalServerError {
		return zapcore.ErrorLevel
	}
	return zapcore.InfoLevel
}

func (l *accessLine) fields() []zap.Field {
	read := 0
	if l.body != nil {
		read = l.body.n
	}
	response := l.response()
	credentials := l.server.Logs.ShouldLogCredentials
	return append([]zap.Field{
		zap.Object("request", caddyhttp.LoggableHTTPRequest{Request: l.request, ShouldLogCredentials: credentials}),
		zap.Int("bytes_read", read),
		zap.String("user_id", l.user()),
		zap.Duration("duration", time.Since(l.start)),
		zap.Int("size", response.Size()),
		zap.Int("status", response.Status()),
		zap.Object("resp_headers", caddyhttp.LoggableHTTPHeader{Header: response.Header(), ShouldLogCredentials: credentials}),
	}, l.extra...)
}

// user returns who Caddy's authentication says the client is.
func (l *accessLine) user() (user string) {
	if repl, ok := l.ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		user, _ = repl.GetString("http.auth.user.id")
	}
	return user
}

// A countedBody counts what is read of a request's body.
type countedBody struct {
	io.ReadCloser
	n int
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += n
	return n, err
}
