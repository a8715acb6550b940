package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/caddymodule"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// A bareWriter is a server's own.
type bareWriter struct{ header http.Header }

func (w bareWriter) Header() http.Header              { return w.header }
func (w bareWriter) Write(p []byte) (int, error)      { return len(p), nil }
func (w bareWriter) WriteHeader(int)                  {}
func (w bareWriter) FlushError() error                { return nil }
func (w bareWriter) SetWriteDeadline(time.Time) error { return nil }

// A rigidWriter is one of a server without deadlines.
type rigidWriter struct{ http.ResponseWriter }

func (w rigidWriter) FlushError() error { return nil }

// A foreignWriter is one of another module, which may do anything to a body.
type foreignWriter struct{ http.ResponseWriter }

func (w foreignWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// TestLean promises what is passed by when a stream is written, which is only what
// leaves a body as it is.
func TestLean(t *testing.T) {
	plain := func(w http.ResponseWriter) http.ResponseWriter {
		return &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}
	}
	idle := func(deadline caddyhttp.IdleDeadline) func(http.ResponseWriter) http.ResponseWriter {
		return func(w http.ResponseWriter) http.ResponseWriter {
			return &caddyhttp.IdleTimeoutWriter{
				ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
				Ctrl:                  http.NewResponseController(w), Deadline: deadline,
			}
		}
	}
	recorder := func(buffers bool) func(http.ResponseWriter) http.ResponseWriter {
		return func(w http.ResponseWriter) http.ResponseWriter {
			return caddyhttp.NewResponseRecorder(w, new(bytes.Buffer), func(int, http.Header) bool { return buffers })
		}
	}
	for _, tc := range []struct {
		name string
		wrap func(http.ResponseWriter) http.ResponseWriter
		want bool
	}{
		{"nothing around it", func(w http.ResponseWriter) http.ResponseWriter { return w }, true},
		{"a wrapper", plain, true},
		{"two wrappers", func(w http.ResponseWriter) http.ResponseWriter { return plain(plain(w)) }, true},
		{"a recorder", recorder(false), true},
		{"a recorder that buffers", recorder(true), false},
		{"such a recorder within", func(w http.ResponseWriter) http.ResponseWriter { return plain(recorder(true)(w)) }, false},
		{"an idle timeout", idle(caddyhttp.IdleDeadline{Timeout: time.Minute}), true},
		{"a rate", idle(caddyhttp.IdleDeadline{Timeout: time.Minute, MinRate: 1}), false},
		{"a time to end", idle(caddyhttp.IdleDeadline{Timeout: time.Minute, HardDeadline: time.Now().Add(time.Hour)}), false},
		{"another module's", func(w http.ResponseWriter) http.ResponseWriter { return foreignWriter{w} }, false},
		{"another module's within", func(w http.ResponseWriter) http.ResponseWriter { return plain(foreignWriter{w}) }, false},
		{"a server without deadlines", func(w http.ResponseWriter) http.ResponseWriter { return plain(rigidWriter{w}) }, false},
		{"an encoding", func(w http.ResponseWriter) http.ResponseWriter {
			w.Header().Set("Content-Encoding", "gzip")
			return plain(w)
		}, false},
	} {
		got, err := caddymodule.IsLean(tc.wrap(bareWriter{make(http.Header)}))
		if err != nil || got != tc.want {
			t.Errorf("%s: is passed by: %v, want %v (%v)", tc.name, got, tc.want, err)
		}
	}
}

// http2Lab is a lab whose site and client speak HTTP/2.
func http2Lab(t *testing.T, serverOptions, directives string) *lab {
	t.Helper()
	l := loadLab(t, "servers {\n\t\tprotocols h1 h2c\n\t\t"+serverOptions+"\n\t}", directives)
	l.client = wires[3].client(t)
	return l
}

// TestLeanNotRead promises that over HTTP/2 too a client which reads nothing is cut
// off when Caddy's `write_idle` has passed, and is counted as slow.
func TestLeanNotRead(t *testing.T) {
	l := http2Lab(t, "timeouts {\n\t\t\twrite_idle 200ms\n\t\t}", anyChannel)
	quiet, _ := l.open("?channel=b")
	s, _ := stalled(l)
	if s.Proto != "HTTP/2.0" {
		t.Errorf("the protocol is %s", s.Proto)
	}
	eventually(t, "it is cut off", func() bool { return l.numbers("").Closed["slow"] == 1 })
	if n := l.numbers(""); n.Streams != 1 {
		t.Errorf("%d streams are open, ended: %v", n.Streams, n.Closed)
	}
	l.publish("b", "who has nothing to read is not cut off")
	expectData(t, quiet, "who has nothing to read is not cut off")
}

// TestLeanLog promises that the access log has all bytes of a stream, also of what
// was written below the recorders that count for it.
func TestLeanLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l := http2Lab(t, "", "log {\n\t\toutput file "+path+"\n\t\tformat json\n\t}\n\t"+anyChannel)
	resp, err := l.client.Do(l.request("GET", l.site+"/events?channel=a&channel=b", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, data := range []string{"x", "y", "z"} {
		l.publish("a", data)
		eventually(t, "it is delivered", func() bool { return int(data[0]-'x')+1 == l.numbers("").Delivered })
	}
	for _, channel := range []string{"a", "b"} {
		l.do("DELETE", l.admin+"/sse/channels/"+channel, "")
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var line struct {
		Size int
		SSE  struct{ Bytes int }
	}
	eventually(t, "it is logged", func() bool {
		content, err := os.ReadFile(path)
		return err == nil && json.Unmarshal(content, &line) == nil
	})
	if line.SSE.Bytes != len(body) {
		t.Errorf("%d bytes are logged, want %d", line.SSE.Bytes, len(body))
	}
	if line.Size == 0 || line.Size >= len(body) {
		t.Errorf("the recorder has seen %d bytes of %d, want the first frame", line.Size, len(body))
	}
}

// TestLeanQuiet promises that a deadline of what was written long ago ends no
// stream, over any version of HTTP.
func TestLeanQuiet(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.caddyfile(fmt.Sprintf("servers 127.0.0.1:%d {\n\t\ttimeouts {\n\t\t\twrite_idle 100ms\n\t\t}\n\t}", site.secure),
		"sse /events* {\n\t\tallow *\n\t\tkeepalive 400ms\n\t}"))
	for _, w := range wires {
		if !w.tls {
			continue
		}
		t.Run(w.name, func(t *testing.T) {
			s := ssetest.Open(t, w.client(t), fmt.Sprintf("https://localhost:%d/events?channel=a", site.secure), nil)
			s.Expect("hub:open")
			for range 3 { // each comes after at least 300 ms
				s.NextComment()
			}
		})
	}
}
