package torture

import (
	"bufio"
	"bytes"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// TestFindsSabotage holds that the torture can fail: a proxy that drops an event
// of each stream, sends another one twice, and alters a third is found out.
func TestFindsSabotage(t *testing.T) {
	seed := rand.Uint64()
	w := newWorld(t, scenarios[0], rand.New(rand.NewPCG(seed, 0)))
	w.nodes = []string{newSaboteur(t, w.base())}
	w.run(shortRound / 2)
	report := w.history.Check()
	t.Logf("seed %d\n%s", seed, report)
	for _, kind := range []ssetest.ViolationKind{ssetest.Lost, ssetest.Doubled, ssetest.Phantom} {
		if report.Counts[kind] == 0 {
			t.Errorf("no violation %q was found", kind)
		}
	}
}

// newSaboteur starts a proxy and returns its address.
func newSaboteur(t *testing.T, base string) string {
	target, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true}
	proxy := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(resp *http.Response) error {
			if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
				resp.Body = &tampered{body: resp.Body, lines: bufio.NewReader(resp.Body)}
			}
			return nil
		},
		ErrorLog: log.New(io.Discard, "", 0), // the server is killed, and that is right
		// A broken connection stays one.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Or net/http throws away what it has of a body, lines of events, when the
		// answer begins. HTTP/2 has no such thing.
		_ = http.NewResponseController(w).EnableFullDuplex()
		proxy.ServeHTTP(w, r)
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		transport.CloseIdleConnections()
	})
	return server.URL
}

// A tampered stream is almost that which the server sent.
type tampered struct {
	body   io.ReadCloser
	lines  *bufio.Reader
	events int
	unread []byte
}

func (s *tampered) Read(p []byte) (int, error) {
	for len(s.unread) == 0 {
		block, err := s.next()
		if err != nil {
			return 0, err
		}
		s.unread = s.tamper(block)
	}
	n := copy(p, s.unread)
	s.unread = s.unread[n:]
	return n, nil
}

// next reads up to the next empty line.
func (s *tampered) next() (block []byte, err error) {
	for {
		line, err := s.lines.ReadBytes('\n')
		block = append(block, line...)
		if err != nil || len(line) == 1 {
			return block, err
		}
	}
}

func (s *tampered) tamper(block []byte) []byte {
	if !bytes.HasPrefix(block, []byte("id: ")) || !bytes.Contains(block, []byte("\ndata")) || bytes.Contains(block, []byte("hub:")) {
		return block
	}
	switch s.events++; s.events {
	case 10:
		return nil
	case 12:
		return append(block, block...)
	case 14:
		return append(bytes.TrimSuffix(block, []byte("\n")), "data: more\n\n"...)
	}
	return block
}

func (s *tampered) Close() error { return s.body.Close() }
