package caddymodule_test

import (
	"context"
	"io"
	"testing"
)

// TestWriteTimeout holds bugs: the operator bounds every answer of a server by
// `timeouts { write }`, streams too. Over HTTP/1, the engine that takes the connection
// from the server took the bound away with it; over HTTP/2, so did what writes below
// Caddy's idle deadlines if those were off.
func TestWriteTimeout(t *testing.T) {
	for _, idle := range []string{"", "write_idle -1s"} {
		for _, w := range []wire{wires[0], wires[3]} {
			t.Run(w.name+" "+idle, func(t *testing.T) {
				l := loadLab(t, "servers {\n protocols h1 h2c\n timeouts {\n write 100ms\n "+idle+"\n }\n }",
					endpoint("allow *", "keepalive 20ms"))
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				resp, err := w.client(t).Do(l.request("GET", l.site+newsEvents, nil).WithContext(ctx))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				_, _ = io.Copy(io.Discard, resp.Body) // it is broken off, if it ends
				if ctx.Err() != nil {
					t.Error("the stream does not end")
				}
			})
		}
	}
}
