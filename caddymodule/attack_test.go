package caddymodule_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// The tests that begin with TestAttack play somebody who means harm: a client that
// wants what it may not have, a publisher that wants to write into the streams of
// others, a page of another site, a crowd that wants the server to fall over. What
// they assert is what the documentation promises.

// rawBytes sends bytes as they are, for what net/http would mend or refuse to send, and
// reads the answer: of an event stream its first frame.
func (l *lab) rawBytes(port int, request string) reply {
	l.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		l.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		l.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		l.t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	buffered := bufio.NewReader(conn)
	resp, err := http.ReadResponse(buffered, &http.Request{Method: method})
	if err != nil {
		l.t.Fatalf("no answer to %.300q: %s", request, err)
	}
	if resp.Header.Get("Content-Type") != "text/event-stream" {
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			l.t.Fatalf("half an answer to %.300q: %s", request, err)
		}
		return reply{resp, string(body)}
	}
	var frame strings.Builder // its body is not closed: that would read to its end
	for lines := bufio.NewReader(resp.Body); !strings.HasSuffix(frame.String(), "\n\n"); {
		line, err := lines.ReadString('\n')
		if frame.WriteString(line); err != nil {
			break
		}
	}
	return reply{resp, frame.String()}
}

// rawRequest is a request whose target is sent as it is.
func (l *lab) rawRequest(port int, method, target, body string, header ...string) reply {
	l.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n", method, target, port)
	for _, line := range header {
		b.WriteString(line + "\r\n")
	}
	if method != "GET" || body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	return l.rawBytes(port, b.String())
}

// refused checks that an answer is a refusal of a client's mistake: no success,
// no error of the server, and a problem, of which no header holds a line that the
// client injected. Caddy itself may have answered what is no HTTP.
func (r reply) refused(t *testing.T, statuses ...int) {
	t.Helper()
	known := false
	for _, status := range statuses {
		known = known || r.StatusCode == status
	}
	if !known {
		t.Errorf("got status %d, want one of %v; body: %.500q", r.StatusCode, statuses, r.body)
		return
	}
	var p problemReply
	if r.Header.Get("Content-Type") == "application/problem+json" && json.Unmarshal([]byte(r.body), &p) != nil {
		t.Errorf("the problem is no JSON: %.500q", r.body)
	}
	r.clean(t)
}

// clean checks that no header was injected. Those who try name it Injected.
func (r reply) clean(t *testing.T) {
	t.Helper()
	for name, values := range r.Header {
		if strings.Contains(strings.ToLower(name), "injected") {
			t.Errorf("a header was injected: %s: %q", name, values)
		}
		for _, value := range values {
			if strings.ContainsAny(value, "\r\n\x00") || !utf8.ValidString(value) {
				t.Errorf("the header %s has %q", name, value)
			}
		}
	}
	if strings.Count(strings.TrimRight(r.body, "\n"), "\n") > 0 && r.Header.Get("Content-Type") == "application/problem+json" {
		t.Errorf("the problem has several lines: %q", r.body)
	}
}

// onlyGets checks that a stream gets nothing that is published on neighbours of
// what it may have: it is sent the one event on a channel that it has, first.
func (l *lab) onlyGets(s *ssetest.Stream, channel string, neighbours ...string) {
	l.t.Helper()
	for _, name := range neighbours {
		l.publish(name, "leaked from "+name)
	}
	l.publish(channel, "the next")
	expectData(l.t, s, "the next")
}

// A parsed is an event as a reader gets it who knows nothing of this project.
type parsed struct{ event, data, id string }

// parseStream reads an event stream by the rules of WHATWG HTML, section 9.2.6,
// written from these rules alone, byte by byte.
func parseStream(stream []byte) (events []parsed, retries []string) {
	stream = bytes.TrimPrefix(stream, []byte("\xef\xbb\xbf"))
	var event, data, id string
	hasData := false
	for len(stream) > 0 {
		end := bytes.IndexAny(stream, "\r\n")
		if end < 0 {
			break // a block that has no end is not dispatched
		}
		line := string(stream[:end])
		skip := 1
		if stream[end] == '\r' && end+1 < len(stream) && stream[end+1] == '\n' {
			skip = 2
		}
		stream = stream[end+skip:]
		if line == "" {
			if hasData {
				if event == "" {
					event = "message"
				}
				events = append(events, parsed{event, strings.TrimSuffix(data, "\n"), id})
			}
			event, data, hasData = "", "", false
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			event = value
		case "data":
			data, hasData = data+value+"\n", true
		case "id":
			if !strings.Contains(value, "\x00") {
				id = value
			}
		case "retry":
			retries = append(retries, value)
		}
	}
	return events, retries
}

// TestAttackParser holds that the parser which these tests use does what the rules
// say, by the examples of the standard.
func TestAttackParser(t *testing.T) {
	for stream, want := range map[string][]parsed{
		"data: YHOO\ndata: +2\ndata: 10\n\n":                                                 {{"message", "YHOO\n+2\n10", ""}},
		": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  x\n\n": {{"message", "first event", "1"}, {"message", "second event", ""}, {"message", " x", ""}},
		"data\n\ndata\ndata\n\ndata:":                                                        {{"message", "", ""}, {"message", "\n", ""}},
		"event: a\rdata: b\r\rdata:c\r\n\r\n":                                                {{"a", "b", ""}, {"message", "c", ""}},
		"\xef\xbb\xbfid: 7\n\nid: a\x00b\ndata: x\n\n":                                       {{"message", "x", "7"}},
	} {
		if got, _ := parseStream([]byte(stream)); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: got %q, want %q", stream, got, want)
		}
	}
}
