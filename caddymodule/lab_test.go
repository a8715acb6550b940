package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// A lab is a Caddy in this process with one plain HTTP site and the admin API,
// each on a port of its own.
type lab struct {
	t                   *testing.T
	client              *http.Client // HTTP/1.1, for streams
	once                *http.Client // a connection for each request: a reload closes idle ones of the admin API
	sitePort, adminPort int
	site, admin         string // base URLs
}

func newLab(t *testing.T) *lab {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	l := &lab{
		t:      t,
		client: &http.Client{Transport: transport},
		once: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // nobody has to follow where a publish is sent
		}},
		sitePort:  caddytest.FreePort(t),
		adminPort: caddytest.FreePort(t),
	}
	l.site = fmt.Sprintf("http://127.0.0.1:%d", l.sitePort)
	l.admin = fmt.Sprintf("http://127.0.0.1:%d", l.adminPort)
	return l
}

// loadLab is a lab with global options and the directives of its site.
func loadLab(t *testing.T, globals, directives string) *lab {
	t.Helper()
	l := newLab(t)
	l.load(globals, directives)
	return l
}

func (l *lab) caddyfile(globals, directives string) string {
	return fmt.Sprintf("{\n\tadmin 127.0.0.1:%d\n\tskip_install_trust\n\tlog {\n\t\tlevel ERROR\n\t}\n\t%s\n}\nhttp://127.0.0.1:%d {\n\t%s\n}\n",
		l.adminPort, globals, l.sitePort, directives)
}

// load loads or reloads.
func (l *lab) load(globals, directives string) {
	l.t.Helper()
	caddytest.Load(l.t, l.caddyfile(globals, directives))
}

// tryLoad is load for what may be refused.
func (l *lab) tryLoad(globals, directives string) error {
	l.t.Helper()
	return caddytest.TryLoad(l.t, l.caddyfile(globals, directives))
}

// in is the lab for a subtest.
func (l *lab) in(t *testing.T) *lab {
	m := *l
	m.t = t
	return &m
}

// A reply is an answer, read to its end.
type reply struct {
	*http.Response
	body string
}

// A problemReply is what RFC 9457 puts into the body.
type problemReply struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Field  string `json:"field"`
	Index  *int   `json:"index"`
	Line   int    `json:"line"`
}

// do sends a request whose header is given as "Name: value" lines.
func (l *lab) do(method, address, body string, header ...string) reply {
	l.t.Helper()
	return l.send(l.request(method, address, strings.NewReader(body), header...))
}

func (l *lab) request(method, address string, body io.Reader, header ...string) *http.Request {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), method, address, body)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	return req
}

func (l *lab) send(req *http.Request) reply {
	l.t.Helper()
	watchdog := time.AfterFunc(10*time.Second, func() { panic("no answer to " + req.Method + " " + req.URL.String()) })
	defer watchdog.Stop()
	resp, err := l.once.Do(req)
	for range 3 {
		if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) || req.GetBody == nil {
			break
		}
		// A reload closed the listener of the admin API that had queued the
		// connection. Nobody has read the request.
		req.Body, _ = req.GetBody() // never fails for strings
		resp, err = l.once.Do(req)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	if req.Method != http.MethodHead && resp.Header.Get("Content-Type") == "text/event-stream" {
		return reply{resp, ": an event stream"} // which does not end
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatalf("%s %s: %s after %q", req.Method, req.URL, err, body)
	}
	return reply{resp, string(body)}
}

// problem checks that the reply is a problem of the status whose detail has
// the parts in it.
func (r reply) problem(t *testing.T, status int, parts ...string) (p problemReply) {
	t.Helper()
	if r.StatusCode != status {
		t.Errorf("got status %d, want %d; body: %.500s", r.StatusCode, status, r.body)
		return p
	}
	if got := r.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("got Content-Type %q, want application/problem+json; body: %.500s", got, r.body)
		return p
	}
	decoder := json.NewDecoder(strings.NewReader(r.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		t.Errorf("the body is no problem: %s: %.500s", err, r.body)
	}
	if p.Status != status || p.Title != http.StatusText(status) {
		t.Errorf("got status %d and title %q in the body", p.Status, p.Title)
	}
	for _, part := range parts {
		if !strings.Contains(p.Detail, part) {
			t.Errorf("the detail does not contain %q: %s", part, p.Detail)
		}
	}
	return p
}

// into decodes a reply with status 200.
func (r reply) into(t *testing.T, value any) {
	t.Helper()
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("got status %d with %q, want 200 with JSON; body: %.500s", r.StatusCode, r.Header.Get("Content-Type"), r.body)
	}
	decoder := json.NewDecoder(strings.NewReader(r.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(value); err != nil {
		t.Fatalf("%s: %.500s", err, r.body)
	}
}

type receipt struct {
	ID          sse.Position `json:"id"`
	Subscribers int          `json:"subscribers"`
}

// publish publishes by the admin API.
func (l *lab) publish(channel, data string) receipt {
	l.t.Helper()
	var r receipt
	l.do("POST", l.admin+"/sse/publish/"+channel, data).into(l.t, &r)
	return r
}

// open subscribes on the site; the query is appended to /events.
func (l *lab) open(query string, header ...string) (*ssetest.Stream, openData) {
	l.t.Helper()
	s := ssetest.Open(l.t, l.client, l.site+"/events"+query, l.request("GET", l.site, nil, header...).Header)
	return s, readOpen(l.t, s)
}

// numbers are those of a hub, by the admin API; the query chooses another than
// the default.
func (l *lab) numbers(query string) (n numbersReply) {
	l.t.Helper()
	l.do("GET", l.admin+"/sse"+query, "").into(l.t, &n)
	return n
}

type numbersReply struct {
	Hub       string         `json:"hub"`
	Position  sse.Position   `json:"position"`
	Streams   int            `json:"streams"`
	Channels  int            `json:"channels"`
	Patterns  int            `json:"patterns"`
	KeptBytes int64          `json:"kept_bytes"`
	Published int            `json:"published"`
	Delivered int            `json:"delivered"`
	Closed    map[string]int `json:"closed"`
	Resets    map[string]int `json:"resets"`
	Refused   map[string]int `json:"refused"`
	Away      int            `json:"sessions_away"`
	Forgotten int            `json:"sessions_forgotten"`
}

// eventually polls what no stream tells, such as that the server has noticed
// the end of a connection.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// openAt subscribes at a path with its query. The first frame is read whatever
// it is.
func (l *lab) openAt(pathAndQuery string, header ...string) (*ssetest.Stream, openData) {
	l.t.Helper()
	s := ssetest.Open(l.t, l.client, l.site+pathAndQuery, l.request("GET", l.site, nil, header...).Header)
	var o openData
	if m := s.Next(); m.Event == "hub:open" {
		decodeStrictly(l.t, m.Data, &o)
	}
	return s, o
}

// openData is the data of hub:open and hub:reset.
type openData struct {
	Connection string      `json:"connection"`
	Channels   []string    `json:"channels"`
	Resume     string      `json:"resume"`
	Reset      []resetData `json:"reset"`
}

type resetData struct {
	Channel string `json:"channel"`
	Reason  string `json:"reason"`
}

func readOpen(t *testing.T, s *ssetest.Stream) (o openData) {
	t.Helper()
	m := s.Expect("hub:open")
	decodeStrictly(t, m.Data, &o)
	return o
}

func decodeStrictly(t *testing.T, text string, into any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%s: %q", err, text)
	}
}

// expectClosed reads hub:close with the reason and the end of the stream.
func expectClosed(t *testing.T, s *ssetest.Stream, reason string) {
	t.Helper()
	if got, want := s.Expect("hub:close").Data, `{"reason":"`+reason+`"}`; got != want {
		t.Errorf("got hub:close %s, want %s", got, want)
	}
	if err := s.End(); err != nil {
		t.Errorf("the stream ended with: %s", err)
	}
}

// expectData reads messages of the default event with that data.
func expectData(t *testing.T, s *ssetest.Stream, want ...string) {
	t.Helper()
	for _, data := range want {
		if got := s.Expect("message").Data; got != data {
			t.Errorf("got data %q, want %q", got, data)
		}
	}
}

func escape(s string) string { return url.QueryEscape(s) }

func decodeLoosely(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%s: %q", err, text)
	}
}
