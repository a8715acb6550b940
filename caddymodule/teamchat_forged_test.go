package caddymodule_test

import (
	"bufio"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// forgeries are headers, as they are on the wire, of a client that would like to
// be Alice and hear project-y.
var forgeries = []struct {
	name, lines string
	malformed   bool // Caddy refuses it, and nobody else sees it
}{
	{"plain", "X-User: alice\r\nX-Channels: project-y, user-alice\r\n", false},
	{"lower case", "x-user: alice\r\nx-channels: project-y, user-alice\r\n", false},
	{"upper case", "X-USER: alice\r\nX-CHANNELS: project-y, user-alice\r\n", false},
	{"everything", "X-User: *\r\nX-Channels: *\r\n", false},
	{"underscores", "X_User: alice\r\nX_Channels: project-y, user-alice\r\n", false},
	{"twice", "X-User: bob\r\nX-User: alice\r\nX-Channels: team\r\nX-Channels: project-y\r\n", false},
	{"twice, in two cases", "X-User: bob\r\nx-user: alice\r\nX-Channels: team\r\nx-CHANNELS: project-y\r\n", false},
	{"empty, then not", "X-User:\r\nX-User: alice\r\nX-Channels:\r\nX-Channels: project-y\r\n", false},
	{"tabs", "X-User:\talice\t\r\nX-Channels:\t\tproject-y\t\r\n", false},
	{"hop by hop", "Connection: X-User, X-Channels\r\nX-User: alice\r\nX-Channels: project-y\r\n", false},
	{"placeholders", "X-User: {http.request.uri.query.me}\r\nX-Channels: {http.request.uri.query.me}\r\n", false},
	{"folded", "X-A: a\r\n X-User: alice\r\nX-B: b\r\n X-Channels: project-y\r\n", false},
	{"trailers", "Trailer: X-User, X-Channels\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-User: alice\r\nX-Channels: project-y\r\n", false},
	{"a space behind the name", "X-User : alice\r\nX-Channels : project-y\r\n", true},
	{"a line end of its own", "X-A: a\rX-User: alice\rX-Channels: project-y\r\n", true},
}

// raw sends a request line by line, as no client would, and returns the status
// and the first frame of a stream, or the whole body of another answer.
func (s *teamChat) raw(path, lines string) (status int, body string) {
	s.t.Helper()
	host := strings.TrimPrefix(s.site, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n"+lines+"\r\n"); err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.Header.Get("Content-Type") != "text/event-stream" {
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			s.t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	reader := bufio.NewReader(resp.Body)
	for !strings.HasSuffix(body, "\n\n") {
		line, err := reader.ReadString('\n')
		if err != nil {
			s.t.Fatalf("%s after %q", err, body)
		}
		body += line
	}
	return resp.StatusCode, body
}

// expectRaw sends a request and checks its status, and the channels if it is a
// stream.
func (s *teamChat) expectRaw(path, lines string, status int, channels ...string) {
	s.t.Helper()
	got, body := s.raw(path, lines)
	if got != status {
		s.t.Errorf("%s with %q: status %d, want %d: %s", path, lines, got, status, body)
	} else if status == http.StatusOK {
		if open := parseOpen(s.t, strings.TrimSuffix(body, "\n")); !slices.Equal(open.Channels, channels) {
			s.t.Errorf("%s with %q: a stream of %q, want %q", path, lines, open.Channels, channels)
		}
	}
}

// A client that sends the headers itself with which the backend answers Caddy
// has nothing of it, whether it is logged in or not.
func TestTeamChatForged(t *testing.T) {
	site := runTeamChat(t)
	bob := site.login("bob", "banana") + "\r\n"
	for _, f := range forgeries {
		t.Run(f.name, func(t *testing.T) {
			s := site.in(t)
			if f.malformed {
				for _, who := range []string{bob, ""} {
					s.expectRaw("/events", who+f.lines, 400)
				}
				return
			}
			s.expectRaw("/events", bob+f.lines, 200, "user-bob")
			s.expectRaw("/events?channel=team", bob+f.lines, 200, "user-bob", "team")
			for _, query := range []string{"?channel=project-y", "?channel=user-alice", "?channel=*", "?channel=project-y&me=alice"} {
				s.expectRaw("/events"+query, bob+f.lines, 403)
				s.expectRaw("/events"+query, f.lines, 401)
			}
			s.expectRaw("/events", f.lines, 401)
		})
	}
	// The backend is not impressed either.
	for _, path := range []string{"/say", "/members"} {
		site.do("POST", site.site+path, "to=team&text=Hello", "X-User: alice", "X-Channels: *").problem(t, 401)
	}
}

// No spelling of the path leads to the stream by a way around the question.
func TestTeamChatPaths(t *testing.T) {
	s := runTeamChat(t)
	for path, want := range map[string]int{
		"/events":              401,
		"/EVENTS":              401,
		"/events/":             401,
		"/events.css":          401,
		"/%65vents":            401,
		"//events":             401,
		"/./events":            401,
		"/x/../events":         401,
		"/events/../page.css":  200, // the page's files are there for everybody
		"/events%2f..%2fauth":  404, // is asked of the backend as it is
		"/events?channel=team": 401,
	} {
		status, body := s.raw(path, "X-User: alice\r\nX-Channels: *\r\n")
		if status != want || strings.Contains(body, "hub:open") {
			t.Errorf("%s: status %d, want %d: %.200s", path, status, want, body)
		}
	}
}

// What the backend's answer lacks stays away: it is never the client's that
// takes its place.
func TestTeamChatAnswerLacks(t *testing.T) {
	site := newTeamChat(t)
	var answer atomic.Pointer[http.Header]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), *answer.Load())
	}))
	defer server.Close()
	site.replace(site.backend, strings.TrimPrefix(server.URL, "http://"), 2)
	site.run()
	for _, tt := range []struct {
		name   string
		answer http.Header
		user   int // the status without a channel that is asked for
		own    []string
		team   int // the status of a request for team
	}{
		{"both", http.Header{}, 400, nil, 403},
		{"both, but for the names", http.Header{"X-User": {""}, "X-Channels": {""}}, 400, nil, 403},
		{"the user", http.Header{"X-Channels": {"team"}}, 400, nil, 200},
		{"the channels", http.Header{"X-User": {"bob"}}, 200, []string{"user-bob"}, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := site.in(t)
			answer.Store(&tt.answer)
			for _, f := range forgeries {
				if f.malformed {
					continue
				}
				s.expectRaw("/events", f.lines, tt.user, tt.own...)
				s.expectRaw("/events?channel=team", f.lines, tt.team, append(slices.Clone(tt.own), "team")...)
				s.expectRaw("/events?channel=project-y", f.lines, 403)
				s.expectRaw("/events?channel=user-alice", f.lines, 403)
			}
		})
	}
}
