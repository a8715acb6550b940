package caddymodule

import (
	"context"
	"net"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// connKey is the key of a request's connection in its context.
type connKey struct{}

// rememberConns has the server that a handler is set up in tell requests what
// connection they came by.
func rememberConns(ctx caddy.Context) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return
	}
	server.RegisterConnContext(func(ctx context.Context, conn net.Conn) context.Context {
		if ctx.Value(connKey{}) != nil {
			return ctx // another handler of the server's has
		}
		return context.WithValue(ctx, connKey{}, conn)
	})
}

// directConn returns the connection by which a response can be written without its
// handler and without what is around it: that of HTTP/1, if nothing but net/http
// and Caddy's own writers stand between. These leave a body alone that is not to be
// transformed; of others that is not known.
func directConn(w http.ResponseWriter, r *http.Request) (conn net.Conn, ok bool) {
	if r.ProtoMajor != 1 || boundsAnswers(r) {
		return nil, false
	}
	conn, ok = r.Context().Value(connKey{}).(net.Conn)
	for ok {
		wrapper, wraps := w.(interface{ Unwrap() http.ResponseWriter })
		if !wraps {
			return conn, isCaddys(w)
		}
		ok, w = isCaddys(w), wrapper.Unwrap()
	}
	return nil, false
}

// boundsAnswers reports whether the request's server ends every answer when its time is
// over, by deadlines that would be lost together with what is around the handler.
func boundsAnswers(r *http.Request) bool {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return ok && server.WriteTimeout > 0
}
