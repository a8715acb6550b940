package caddymodule_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/caddymodule"
)

func init() {
	caddy.RegisterModule(panics{})
	httpcaddyfile.RegisterHandlerDirective("panics", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		h.Next() // the directive's name
		return panics{}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("panics", httpcaddyfile.Before, "encode")
}

// Panics is a handler that has something panic when the answer to a request with the
// header X-Panics is begun.
type panics struct{}

func (panics) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.panics", New: func() caddy.Module { return new(panics) }}
}

func (panics) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.Header.Get("X-Panics") == "" {
		return next.ServeHTTP(w, r)
	}
	return next.ServeHTTP(caddyhttp.NewResponseRecorder(w, new(bytes.Buffer), func(int, http.Header) bool {
		panic(http.ErrAbortHandler) // which is not logged
	}), r)
}

// TestPanicGivesBack holds a bug: a response writer around ours panicked when a stream
// was begun. Its seat was never given back, its subscriber never left the hub, over
// HTTP/2 the sweep went on looking at its writer, and over HTTP/1 its connection was
// never closed.
func TestPanicGivesBack(t *testing.T) {
	const directives = "panics\n\t" + "sse /events* {\n\t\tallow *\n\t\tlimits {\n\t\t\tconnections 1\n\t\t}\n\t}"
	for name, l := range map[string]*lab{"HTTP/1": newLab(t), "HTTP/2": newLab(t)} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			l.load("servers {\n\t\tprotocols h1 h2c\n\t}", directives)
			if name == "HTTP/2" {
				l.client = wires[3].client(t)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			resp, err := l.client.Do(l.request("GET", l.site+"/events?channel=a", nil, "X-Panics: yes").WithContext(ctx))
			switch {
			case err == nil:
				resp.Body.Close()
				t.Error("nothing panicked, so the test shows nothing")
			case errors.Is(err, context.DeadlineExceeded):
				t.Error("the connection is not closed")
			}
			s, open := l.openAt("/events?channel=a")
			if open.Connection == "" {
				t.Error("the route is full")
			}
			if n := l.numbers("").Streams; n != 1 {
				t.Errorf("there are %d streams, want 1", n)
			}
			s.Close()
			eventually(t, "no writer is looked at any more", func() bool { return caddymodule.LeanWriters() == 0 })
		})
	}
}
