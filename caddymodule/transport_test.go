package caddymodule_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
)

// patience is how long these tests wait for something that should happen at
// once. It is generous because the race detector and two cores are slow.
const patience = 15 * time.Second

// A wire is a way for HTTP to get to the server.
type wire struct {
	name  string
	proto string // as the client sees it
	tls   bool
	// newTransport's second result closes all connections.
	newTransport func() (http.RoundTripper, func())
}

var wires = []wire{
	{"http1", "HTTP/1.1", false, tcpTransport((*http.Protocols).SetHTTP1)},
	{"http1-tls", "HTTP/1.1", true, tcpTransport((*http.Protocols).SetHTTP1)},
	{"http2", "HTTP/2.0", true, tcpTransport((*http.Protocols).SetHTTP2)},
	{"http2-cleartext", "HTTP/2.0", false, tcpTransport((*http.Protocols).SetUnencryptedHTTP2)},
	{"http3", "HTTP/3.0", true, func() (http.RoundTripper, func()) {
		transport := &http3.Transport{TLSClientConfig: insecure(), DisableCompression: true}
		return transport, func() { _ = transport.Close() }
	}},
}

func tcpTransport(set func(*http.Protocols, bool)) func() (http.RoundTripper, func()) {
	return func() (http.RoundTripper, func()) {
		transport := &http.Transport{TLSClientConfig: insecure(), DisableCompression: true, Protocols: new(http.Protocols)}
		set(transport.Protocols, true)
		return transport, transport.CloseIdleConnections
	}
}

// insecure trusts the certificates of `tls internal`.
func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// client returns one whose connections are closed when the test ends.
func (w wire) client(t testing.TB) *http.Client {
	transport, closeAll := w.newTransport()
	t.Cleanup(closeAll)
	return &http.Client{Transport: transport}
}

// A hubSite is the ports of a Caddy with a subscriber endpoint on every wire
// and an API.
type hubSite struct {
	plain, secure, api int
}

func newHubSite(t testing.TB) hubSite {
	return hubSite{caddytest.FreePort(t), caddytest.FreePort(t), caddytest.FreePort(t)}
}

// globals begins the global options of all these tests, in which `options` are
// further ones.
func (s hubSite) globals(options string) string {
	return fmt.Sprintf(`{
	admin off
	local_certs
	skip_install_trust
	auto_https disable_redirects
	default_bind 127.0.0.1
	log {
		level WARN
	}
	servers 127.0.0.1:%d {
		protocols h1 h2c
	}
	%s
}
`, s.plain, options)
}

// caddyfile serves the route, which is Caddyfile directives, on both ports, and
// the API.
func (s hubSite) caddyfile(options, route string) string {
	return s.globals(options) + fmt.Sprintf(`
http://localhost:%d, https://localhost:%d {
	%s
}

http://localhost:%d {
	sse_api /sse* {
		unauthenticated
		max_body 4MiB
	}
}
`, s.plain, s.secure, route, s.api)
}

// load runs a Caddyfile and waits for the certificate, which `tls internal`
// issues when everything else is running already.
func (s hubSite) load(t testing.TB, caddyfile string) {
	t.Helper()
	caddytest.Load(t, caddyfile)
	awaitTLS(t, s.secure)
}

func awaitTLS(t testing.TB, port int) {
	t.Helper()
	config := insecure()
	config.ServerName = "localhost"
	var err error
	await(t, func() bool {
		var conn *tls.Conn
		if conn, err = tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), config); err == nil {
			conn.Close()
		}
		return err == nil
	}, func() string { return "no TLS: " + err.Error() })
}

// url returns the address of the endpoint over a wire.
func (s hubSite) url(w wire, pathAndQuery string) string {
	if w.tls {
		return fmt.Sprintf("https://localhost:%d%s", s.secure, pathAndQuery)
	}
	return fmt.Sprintf("http://localhost:%d%s", s.plain, pathAndQuery)
}

func (s hubSite) apiURL(path string) string {
	return fmt.Sprintf("http://localhost:%d/sse%s", s.api, path)
}

// call sends a request to the API and decodes the answer, which must be 200.
func (s hubSite) call(t testing.TB, method, path, contentType, body string, into any) {
	t.Helper()
	err := s.tryCall(t.Context(), method, path, contentType, body, into)
	for range droppedTries {
		if !dropped(err) {
			break
		}
		err = s.tryCall(t.Context(), method, path, contentType, body, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// droppedTries is how often a request is sent again whose connection Caddy
// dropped.
const droppedTries = 3

// dropped reports whether a connection was closed before it was answered. Caddy
// does so, with or without this module, to those that the listener of a
// configuration that just ended had queued; nobody has read their requests.
func dropped(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}

// tryCall uses a connection of its own, so that none that a reload closes is
// used again.
func (s hubSite) tryCall(ctx context.Context, method, path, contentType, body string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.apiURL(path), strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s %s (error: %w)", method, path, resp.Status, answer, err)
	}
	if into == nil {
		into = new(any)
	}
	// Caddy answers 200 without a body where no site matches.
	return json.Unmarshal(answer, into)
}

// publish publishes data on a channel and returns the event's id.
func (s hubSite) publish(t testing.TB, channel, event, data string) string {
	t.Helper()
	var receipt struct {
		ID string `json:"id"`
	}
	path := "/publish/" + channel
	if event != "" {
		path += "?event=" + event
	}
	s.call(t, http.MethodPost, path, "text/plain", data, &receipt)
	return receipt.ID
}

type hubNumbers struct {
	Position  string            `json:"position"`
	Streams   int               `json:"streams"`
	Channels  int               `json:"channels"`
	KeptBytes int64             `json:"kept_bytes"`
	Published uint64            `json:"published"`
	Delivered uint64            `json:"delivered"`
	Closed    map[string]uint64 `json:"closed"`
}

func (s hubSite) numbers(t testing.TB) (n hubNumbers) {
	t.Helper()
	s.call(t, http.MethodGet, "", "", "", &n)
	return n
}

// awaitStreams waits until the hub has that many streams.
func (s hubSite) awaitStreams(t testing.TB, want int) {
	t.Helper()
	got := -1
	await(t, func() bool {
		got = s.numbers(t).Streams
		return got == want
	}, func() string { return fmt.Sprintf("the hub has %d streams, want %d", got, want) })
}

// await polls a condition that nothing tells of.
func await(t testing.TB, done func() bool, otherwise func() string) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %s", patience, otherwise())
		}
		<-ticker.C
	}
}

// A rawStream is an event stream, read as bytes.
type rawStream struct {
	t      testing.TB
	name   string
	resp   *http.Response
	body   *bufio.Reader
	cancel context.CancelFunc
	lastID string
}

// openRaw opens a stream, whose first frame must be there at once and must be
// hub:open.
func openRaw(t testing.TB, client *http.Client, url string, header http.Header) (s *rawStream, open string) {
	t.Helper()
	s = &rawStream{t: t, name: url}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	t.Cleanup(s.close)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header.Clone()
	}
	req.Header.Set("Accept", "text/event-stream")
	limit := time.AfterFunc(patience, s.cancel)
	s.resp, err = client.Do(req)
	for tries := 0; tries < droppedTries && dropped(err); tries++ {
		s.resp, err = client.Do(req)
	}
	if err != nil {
		t.Fatalf("%s: %s", url, err)
	}
	limit.Stop()
	s.body = bufio.NewReaderSize(s.resp.Body, 256<<10)
	if s.resp.StatusCode != http.StatusOK {
		limit := time.AfterFunc(patience, s.cancel)
		defer limit.Stop()
		body, _ := io.ReadAll(s.resp.Body)
		t.Fatalf("%s: status %s, want 200: %s", url, s.resp.Status, body)
	}
	return s, s.frame()
}

// frame returns the next frame, without its last empty line. Keepalives are
// passed over.
func (s *rawStream) frame() string {
	s.t.Helper()
	frame, err := s.tryFrame()
	if err != nil {
		s.t.Fatalf("%s: the stream ended (%v) where a frame should be; so far: %.300q", s.name, err, frame)
	}
	return frame
}

func (s *rawStream) tryFrame() (string, error) {
	limit := time.AfterFunc(patience, s.cancel)
	defer limit.Stop()
	for {
		var frame strings.Builder
		for {
			line, err := s.body.ReadString('\n')
			if err != nil {
				return frame.String() + line, err
			}
			if line == "\n" {
				break
			}
			if id, ok := strings.CutPrefix(line, "id: "); ok {
				s.lastID = strings.TrimSuffix(id, "\n")
			}
			frame.WriteString(line)
		}
		if !strings.HasPrefix(frame.String(), ": keepalive\n") {
			return frame.String(), nil
		}
	}
}

// end returns the remaining frames, after which the stream must end cleanly.
func (s *rawStream) end() []string {
	s.t.Helper()
	var frames []string
	for {
		frame, err := s.tryFrame()
		switch {
		case errors.Is(err, io.EOF) && frame == "":
			return frames
		case err != nil:
			s.t.Errorf("%s: the stream ended with %v, want a clean end; after %.300q", s.name, err, append(frames, frame))
			return frames
		}
		frames = append(frames, frame)
	}
}

// expectClose reads the last frame, which must tell the reason, and the end.
func (s *rawStream) expectClose(reason string) {
	s.t.Helper()
	frames := s.end()
	want := fmt.Sprintf("event: hub:close\ndata: {\"reason\":%q}\n", reason)
	if len(frames) != 1 || !strings.HasSuffix(frames[0], want) {
		s.t.Errorf("%s: the stream ended with %q, want one frame with %q", s.name, frames, want)
	}
}

func (s *rawStream) close() {
	s.cancel()
	if s.resp != nil {
		s.resp.Body.Close()
	}
}

// field returns a field of a frame.
func field(frame, name string) string {
	for line := range strings.Lines(frame) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return strings.TrimSuffix(value, "\n")
		}
	}
	return ""
}

// opening is the data of hub:open.
type opening struct {
	Connection string   `json:"connection"`
	Channels   []string `json:"channels"`
	Resume     string   `json:"resume"`
	Reset      []struct {
		Channel string `json:"channel"`
		Reason  string `json:"reason"`
	} `json:"reset"`
}

// parseOpen checks the first frame's form.
func parseOpen(t testing.TB, frame string) (o opening) {
	t.Helper()
	lines := strings.Split(frame, "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[0], "retry: ") || !strings.HasPrefix(lines[1], "id: ") || lines[2] != "event: hub:open" {
		t.Fatalf("the first frame is %q, want retry, id, event: hub:open, data", frame)
	}
	if err := json.Unmarshal([]byte(field(frame, "data")), &o); err != nil {
		t.Fatalf("the first frame's data: %s", err)
	}
	return o
}

// awkward events, with what has to be on the wire behind the id.
func awkwardEvents() []struct{ event, data, wire string } {
	large := strings.Repeat("0123456789abcdef", 100<<10/16)
	return []struct{ event, data, wire string }{
		{"", "plain", "data: plain\n"},
		{"stockUpdate", `{"symbol":"ACME"}`, "event: stockUpdate\ndata: {\"symbol\":\"ACME\"}\n"},
		{"", "", "data: \n"},
		{"", "one\r\ntwo\rthree\nfour", "data: one\ndata: two\ndata: three\ndata: four\n"},
		{"", "trailing\n", "data: trailing\ndata: \n"},
		{"", "\n\n", "data: \ndata: \ndata: \n"},
		{"", "  spaces, id: 7\nevent: x", "data:   spaces, id: 7\ndata: event: x\n"},
		{"Grüße", "ἄνδρα μοι ἔννεπε 🦆\u2028\ufeff", "event: Grüße\ndata: ἄνδρα μοι ἔννεπε 🦆\u2028\ufeff\n"},
		{"large", large, "event: large\ndata: " + large + "\n"},
	}
}

// publishAwkward publishes them as one array and returns the frames.
func (s hubSite) publishAwkward(t testing.TB, channel string) (frames []string) {
	t.Helper()
	var envelopes []map[string]any
	for _, e := range awkwardEvents() {
		envelope := map[string]any{"channel": channel, "data": e.data}
		if e.event != "" {
			envelope["event"] = e.event
		}
		envelopes = append(envelopes, envelope)
	}
	body, err := json.Marshal(envelopes)
	if err != nil {
		t.Fatal(err)
	}
	var receipts []struct {
		ID string `json:"id"`
	}
	s.call(t, http.MethodPost, "/publish", "application/json", string(body), &receipts)
	for i, e := range awkwardEvents() {
		frames = append(frames, "id: "+receipts[i].ID+"\n"+e.wire)
	}
	return frames
}

// carry holds a wire to the contract: what goes over it is the same as over
// all others.
func carry(t *testing.T, site hubSite, w wire, url string, header http.Header) {
	client := w.client(t)
	stream, first := openRaw(t, client, url, header)

	if stream.resp.Proto != w.proto {
		t.Errorf("the protocol is %s, want %s", stream.resp.Proto, w.proto)
	}
	for name, want := range map[string]string{
		"Content-Type":      "text/event-stream",
		"Cache-Control":     "no-cache, no-transform",
		"X-Accel-Buffering": "no",
		"Content-Encoding":  "",
		"Content-Length":    "",
	} {
		if got := stream.resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if o := parseOpen(t, first); o.Resume != "fresh" {
		t.Errorf("a new client's resume is %q, want fresh", o.Resume)
	}

	want := site.publishAwkward(t, "news")
	expectFrames(t, "live", stream, want)

	stream.close()
	site.awaitStreams(t, 0)
	lastID := stream.lastID
	missed := site.publishAwkward(t, "news")

	resuming := http.Header{"Last-Event-Id": {lastID}}
	maps.Copy(resuming, header)
	stream, first = openRaw(t, client, url, resuming)
	if o := parseOpen(t, first); o.Resume != "complete" || field(first, "id") != lastID {
		t.Errorf("the resumed stream begins with %q, want complete and id %s", first, lastID)
	}
	expectFrames(t, "replayed", stream, missed)
	stream.close()
	site.awaitStreams(t, 0)
}

func expectFrames(t testing.TB, what string, stream *rawStream, want []string) {
	t.Helper()
	for i := range want {
		if got := stream.frame(); got != want[i] {
			t.Fatalf("%s frame %d of %s is %.300q, want %.300q", what, i, stream.name, got, want[i])
		}
	}
}

const newsRoute = `
	sse /events* {
		allow news*
	}`

// TestTransport holds the promise that a stream is the same, byte by byte, over
// every HTTP version, with TLS and without: section 1 of the contract.
func TestTransport(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.caddyfile("", newsRoute))
	for _, w := range wires {
		t.Run(w.name, func(t *testing.T) { carry(t, site, w, site.url(w, "/events?channel=news"), nil) })
	}
}

// TestTransportEncode holds the promise that no compressor holds a stream back:
// it arrives as it is where everything else is compressed.
func TestTransportEncode(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.caddyfile("", `
	encode gzip zstd
	respond /text "`+strings.Repeat("compressible ", 200)+`"
	`+newsRoute))
	for _, w := range wires {
		t.Run(w.name, func(t *testing.T) {
			accept := http.Header{"Accept-Encoding": {"gzip, zstd"}}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, site.url(w, "/text"), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header = accept.Clone()
			resp, err := w.client(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.Header.Get("Content-Encoding") == "" {
				t.Fatal("nothing is compressed here, so the test shows nothing")
			}
			carry(t, site, w, site.url(w, "/events?channel=news"), accept)
		})
	}
}

// TestTransportObserved holds the promise that the wrappers which access logs
// and metrics put around the response writer change nothing, and that the log
// tells how each stream ended.
func TestTransportObserved(t *testing.T) {
	site := newHubSite(t)
	path := filepath.Join(t.TempDir(), "access.log")
	site.load(t, site.caddyfile("metrics {\n per_host\n }", `
	log {
		output file `+path+`
	}
	`+newsRoute))
	for _, w := range wires {
		t.Run(w.name, func(t *testing.T) { carry(t, site, w, site.url(w, "/events?channel=news"), nil) })
	}
	type entry struct {
		Status int
		SSE    *struct {
			Hub, Connection, Resume, Reason string
			Channels                        []string
			Events                          int
		}
	}
	var got []entry
	await(t, func() bool {
		got = nil
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			var e entry
			if err := json.Unmarshal(line, &e); err == nil {
				got = append(got, e)
			}
		}
		return len(got) == 2*len(wires)
	}, func() string { return fmt.Sprintf("the access log has %d lines, want %d", len(got), 2*len(wires)) })
	for _, e := range got {
		if e.Status != http.StatusOK || e.SSE == nil || e.SSE.Reason != "client" || e.SSE.Events != len(awkwardEvents()) || e.SSE.Connection == "" {
			t.Errorf("the access log has %+v (%+v), want status 200 and the stream's fields", e, e.SSE)
		}
	}
}

// TestTransportProxied holds the promise that a stream gets through another
// Caddy's reverse_proxy as it is, whatever HTTP versions are before and behind
// it, and that the hub notices when a client behind the proxy leaves.
func TestTransportProxied(t *testing.T) {
	for _, upstream := range []struct{ name, proxy string }{
		{"to-http1", "reverse_proxy http://localhost:PLAIN"},
		{"to-http1-encode", "encode gzip\n reverse_proxy http://localhost:PLAIN"},
		{"to-http2-cleartext", "reverse_proxy h2c://localhost:PLAIN"},
		{"to-http2", "reverse_proxy https://localhost:SECURE {\n header_up Host {upstream_hostport}\n transport http {\n tls_insecure_skip_verify\n versions 2\n }\n }"},
		{"to-http3", "reverse_proxy https://localhost:SECURE {\n header_up Host {upstream_hostport}\n transport http {\n tls_insecure_skip_verify\n versions 3\n }\n }"},
	} {
		t.Run(upstream.name, func(t *testing.T) {
			site, front := newHubSite(t), newHubSite(t)
			proxy := strings.NewReplacer("PLAIN", fmt.Sprint(site.plain), "SECURE", fmt.Sprint(site.secure)).Replace(upstream.proxy)
			options := fmt.Sprintf("servers 127.0.0.1:%d {\n protocols h1 h2c\n }", front.plain)
			site.load(t, site.caddyfile(options, newsRoute)+fmt.Sprintf(`
http://localhost:%d, https://localhost:%d {
	%s
}
`, front.plain, front.secure, proxy))
			awaitTLS(t, front.secure)
			for _, w := range wires {
				t.Run(w.name, func(t *testing.T) {
					var header http.Header
					if strings.Contains(proxy, "encode") {
						header = http.Header{"Accept-Encoding": {"gzip"}}
					}
					carry(t, site, w, front.url(w, "/events?channel=news"), header)
				})
			}
		})
	}
}
