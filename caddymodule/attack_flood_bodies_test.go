package caddymodule_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// endless is a body that never ends, and counts what was taken of it.
type endless struct {
	chunk []byte
	taken atomic.Int64
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.chunk)
	e.taken.Add(int64(n))
	return n, nil
}

// TestAttackGiantBodies promises that a body beyond the limit is refused with 413
// after a bounded number of bytes, whether it tells its length, lies about it, or
// is sent for ever; and that nothing of it is published.
func TestAttackGiantBodies(t *testing.T) {
	f := newFlood(t)
	own, _ := f.open("?channel=a&connection=" + aliceID)
	for _, tc := range []struct{ name, path, contentType string }{
		{"publish", "/api/publish/a", ""},
		{"envelopes", "/api/publish", "application/json"},
		{"form", "/api/publish", "application/x-www-form-urlencoded"},
		{"change", "/events?connection=" + aliceID, "application/json"},
		{"control", "/api/connections/" + aliceID + "/channels", "application/json"},
		{"another type", "/events?connection=" + aliceID, "text/plain"},
		{"the path of a channel", "/events/subscribe/b?connection=" + aliceID, ""},
		{"no token", "/api/publish/a?", ""},
	} {
		for _, length := range []int64{-1, 1 << 50} {
			t.Run(fmt.Sprint(tc.name, " ", length), func(t *testing.T) {
				g := f.in(t)
				body := &endless{chunk: []byte(strings.Repeat(`["aaaaaa",`, 3000))}
				req := g.request("POST", f.site+tc.path, body)
				req.ContentLength = length
				req.Header.Set("Content-Type", tc.contentType)
				if tc.name != "no token" {
					req.Header.Set("Authorization", "Bearer token")
				}
				watchdog := time.AfterFunc(patience, func() { panic("the body is read for ever: " + tc.name) })
				resp, err := g.once.Do(req)
				watchdog.Stop()
				// The connection may break before a client has read the answer that
				// was sent while it wrote.
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					switch {
					case tc.name == "the path of a channel" && resp.StatusCode == 200: // it needs no body
					case resp.StatusCode < 400 || resp.StatusCode >= 500:
						t.Errorf("it was answered %d", resp.StatusCode)
					}
				}
				if taken := body.taken.Load(); taken > 64<<20 {
					t.Errorf("%d MiB were taken", taken>>20)
				}
				f.still("after a giant body")
			})
		}
	}
	// One that is a little too large is told so.
	for _, tc := range []struct {
		path, contentType string
		size              int
	}{
		{"/api/publish/a", "text/plain", 2 << 20},
		{"/api/publish", "application/json", 2 << 20},
		{"/events?connection=" + aliceID, "application/json", 140_000},
	} {
		f.do("POST", f.site+tc.path, strings.Repeat("x", tc.size), "Authorization: Bearer token", "Content-Type: "+tc.contentType).problem(t, 413, "bytes")
	}
	got := f.do("POST", f.site+"/api/publish", `{"channel":"a","data":"`+strings.Repeat("x", 8<<20)+"\"}\n"+`{"channel":"a","data":"after it"}`+"\n", "Authorization: Bearer token", "Content-Type: application/x-ndjson")
	if !strings.Contains(got.body, `"status":413`) || strings.Count(got.body, "\n") != 2 {
		t.Errorf("the lines were answered %.500s", got.body)
	}
	m := own.Next()
	for m.Event == "hub:channels" {
		m = own.Next()
	}
	if m.Data != "after it" {
		t.Errorf("got %.200s", m.Data)
	}
	own.Close()
	f.over()
}

// TestAttackCompressedBodies promises that nothing is decompressed: a small body
// that would become a giant is refused.
func TestAttackCompressedBodies(t *testing.T) {
	f := newFlood(t)
	own, _ := f.open("?channel=a&connection=" + aliceID)
	var bomb bytes.Buffer
	compressor := gzip.NewWriter(&bomb)
	for range 16 {
		if _, err := compressor.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	compressor.Close()
	for _, encoding := range []string{"gzip", "GZIP", "x-gzip", "deflate", "br", "zstd", "gzip, gzip", "identity, gzip", "unknown"} {
		for _, path := range []string{"/api/publish/a", "/api/publish", "/events?connection=" + aliceID, "/api/connections/" + aliceID + "/channels"} {
			for _, contentType := range []string{"application/json", "application/x-ndjson"} {
				if contentType == "application/x-ndjson" && path != "/api/publish" {
					continue
				}
				f.do("POST", f.site+path, bomb.String(), "Authorization: Bearer token", "Content-Encoding: "+encoding, "Content-Type: "+contentType).refused(t, 415)
			}
		}
	}
	f.still("after bombs")
	own.Close()
	f.over()
}

// TestAttackGiantRequests promises that requests with thousands of parameters, or a
// giant query or header, are refused, and cost nobody else anything.
func TestAttackGiantRequests(t *testing.T) {
	f := newFlood(t)
	own, _ := f.open("?channel=a&connection=" + aliceID)
	auth := "Authorization: Bearer token"
	var distinct strings.Builder
	for i := range 1500 { // as many as Caddy's limit of a header lets through
		fmt.Fprintf(&distinct, "&channel=%x", i)
	}
	for _, tc := range []struct{ name, method, target, header string }{
		{"10,000 channels", "GET", "/events?channel=a" + strings.Repeat("&channel=a", 10_000), ""},
		{"1,500 channels", "GET", "/events?channel=a" + distinct.String(), ""},
		{"1,500 times a channel", "GET", "/events?channel=a" + strings.Repeat("&channel=a", 1500), ""},
		{"1,500 connections", "POST", "/events?connection=a" + strings.Repeat("&connection=a", 1500), ""},
		{"1,500 positions", "GET", "/events?channel=a" + strings.Repeat("&since=1.1&last_event_id=1.2", 500), ""},
		{"1,500 events", "POST", "/api/publish/a?event=a" + strings.Repeat("&event=a", 1500), auth},
		{"a giant query", "GET", "/events?channel=a&x=" + strings.Repeat("x", 1<<20), ""},
		{"a giant path", "POST", "/events/subscribe/" + strings.Repeat("x", 1<<20), ""},
		{"a giant header", "GET", "/events?channel=a", "Last-Event-ID: " + strings.Repeat("x", 1<<20)},
		{"10,000 headers", "GET", "/events?channel=a", strings.TrimSuffix(strings.Repeat("Last-Event-ID: a\r\n", 10_000), "\r\n")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := f.in(t)
			req := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\nContent-Length: 0\r\n%s\r\n\r\n", tc.method, tc.target, f.sitePort, tc.header)
			if tc.header == "" {
				req = strings.Replace(req, "\r\n\r\n\r\n", "\r\n\r\n", 1)
			}
			if len(req) > 1<<20 { // the connection may break before all is sent
				g.overwhelm(f.sitePort, req)
			} else {
				g.rawBytes(f.sitePort, req).refused(t, 400, 414, 431)
			}
		})
	}
	// A form of many fields, an event for many channels, an array of many events.
	for _, tc := range []struct{ body, contentType string }{
		{strings.Repeat("a=&", 300_000), "application/x-www-form-urlencoded"},
		{"data=x" + strings.Repeat("&channels=a", 90_000), "application/x-www-form-urlencoded"},
		{`{"data":"x","channels":[` + strings.Repeat(`"a",`, 200_000) + `"a"]}`, "application/json"},
		{strings.Repeat(`[`, 1_000_000), "application/json"},
		{`{"channel":"a","data":` + strings.Repeat(`{"a":`, 150_000), "application/json"},
		{"[" + strings.Repeat(`{},`, 300_000) + "{}]", "application/json"},
	} {
		f.do("POST", f.site+"/api/publish", tc.body, auth, "Content-Type: "+tc.contentType).refused(t, 400, 413)
	}
	f.still("after giant requests")
	own.Close()
	f.over()
}

// overwhelm sends what is too much, of which the server need not take all, and
// returns when the server has closed the connection.
func (l *lab) overwhelm(port int, request string) {
	l.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		l.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		l.t.Fatal(err)
	}
	_, _ = io.WriteString(conn, request) // it may break off
	var timeout net.Error
	if _, err := io.Copy(io.Discard, conn); errors.As(err, &timeout) && timeout.Timeout() {
		l.t.Errorf("the server neither refuses it nor hangs up")
	}
}

// TestAttackBodiesAreNotKept promises that the memory which a hub is allowed is all
// that it keeps of events: the name of a channel, or the id of an event, does not
// keep the body or the query alive in which it came.
func TestAttackBodiesAreNotKept(t *testing.T) {
	f := newFlood(t)
	data := strings.Repeat("x", 500_000)
	padding := strings.Repeat("x", 15_000)
	for i := range 200 {
		for _, got := range []reply{
			f.do("POST", f.admin+"/sse/publish", fmt.Sprintf("channel=form-%d&id=form-%d&data=%s", i, i, data), "Content-Type: application/x-www-form-urlencoded"),
			f.do("POST", f.admin+"/sse/publish", fmt.Sprintf(`{"channel":"json-%d","id":"json-%d","data":"%s"}`, i, i, data), jsonType),
		} {
			if got.StatusCode != 200 {
				t.Fatalf("got %d %s", got.StatusCode, got.body)
			}
		}
	}
	for i := range 4000 {
		got := f.do("POST", fmt.Sprintf("%s/sse/publish/raw-%d?id=raw-%d&event=%s", f.admin, i%100, i, padding[:200]), "x", "X-Padding: "+padding)
		if got.StatusCode != 200 {
			t.Fatalf("got %d %s", got.StatusCode, got.body)
		}
	}
	f.over()
}

// TestAttackManyNames promises that a change which names far more channels than a
// stream may have is refused: a client who asks for it over and over keeps nobody
// from publishing and listening.
func TestAttackManyNames(t *testing.T) {
	f := newFlood(t)
	own, _ := f.open("?channel=a&connection=" + aliceID)
	var names []string
	for i := range 18_000 {
		names = append(names, fmt.Sprintf("%x", i))
	}
	distinct := `["` + strings.Join(names, `","`) + `"]`
	for _, tc := range []struct {
		name, body string
		statuses   []int
	}{
		{"many names", `{"subscribe":` + distinct + `}`, []int{400}},
		{"the same often", `{"subscribe":["b"` + strings.Repeat(`,"b"`, 30_000) + `]}`, []int{200, 400}},
		{"many patterns", `{"subscribe":["` + strings.Join(names[:14_000], `*","`) + `*"]}`, []int{400}},
		{"unsubscribe many", `{"unsubscribe":` + distinct + `}`, []int{200, 400}},
		{"both", `{"subscribe":["` + strings.Join(names[:8000], `","`) + `"],"unsubscribe":["` + strings.Join(names[8000:17_000], `","`) + `"]}`, []int{400}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := f.in(t)
			for range 10 {
				got := g.do("POST", f.site+"/events?connection="+aliceID, tc.body, jsonType)
				if got.StatusCode != 200 || tc.statuses[0] != 200 {
					got.refused(t, tc.statuses...)
				}
				f.still("while many names are asked for")
			}
		})
	}
	own.Close()
	f.over()
}
