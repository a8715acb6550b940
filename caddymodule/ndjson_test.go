package caddymodule_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// A lineReply is the answer to a line: a receipt or a problem.
type lineReply struct {
	ID          sse.Position `json:"id"`
	Subscribers int          `json:"subscribers"`
	problemReply
}

// A linePublisher has a request open whose body is lines.
type linePublisher struct {
	t       testing.TB
	name    string
	body    *io.PipeWriter
	resp    *http.Response
	answers *bufio.Reader
	cancel  context.CancelFunc
}

// openLines returns when the header of the answer is there, before any line is
// sent.
func openLines(t testing.TB, client *http.Client, url string) *linePublisher {
	t.Helper()
	p := &linePublisher{t: t, name: url}
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	t.Cleanup(p.cancel)
	var body *io.PipeReader
	body, p.body = io.Pipe()
	t.Cleanup(func() { body.Close() })
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	defer time.AfterFunc(patience, p.cancel).Stop()
	if p.resp, err = client.Do(req); err != nil {
		t.Fatalf("%s: %s", url, err)
	}
	t.Cleanup(func() { p.resp.Body.Close() })
	if p.resp.StatusCode != http.StatusOK || p.resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("%s: got %s with %s", url, p.resp.Status, p.resp.Header.Get("Content-Type"))
	}
	p.answers = bufio.NewReader(p.resp.Body)
	return p
}

// send sends bytes, which may be several lines or a part of one. A server that
// has ended the answer takes no more.
func (p *linePublisher) send(text string) error {
	defer time.AfterFunc(patience, p.cancel).Stop()
	_, err := io.WriteString(p.body, text)
	return err
}

// next returns the next answer, or an error at the end.
func (p *linePublisher) next() (r lineReply, err error) {
	defer time.AfterFunc(patience, p.cancel).Stop()
	text, err := p.answers.ReadString('\n')
	if err != nil {
		if text != "" {
			p.t.Errorf("%s: the answer ends within a line: %q", p.name, text)
		}
		return r, err
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		p.t.Errorf("%s: %s: %q", p.name, err, text)
	}
	if r.Title != http.StatusText(r.Status) {
		p.t.Errorf("%s: the title of %q is not that of its status", p.name, text)
	}
	return r, nil
}

// receipt sends text and returns the receipt that it is answered by.
func (p *linePublisher) receipt(text string) lineReply {
	p.t.Helper()
	if err := p.send(text); err != nil {
		p.t.Fatalf("%s: %s", p.name, err)
	}
	r, err := p.next()
	if err != nil || r.Status != 0 {
		p.t.Fatalf("%s: got %+v (%v) for %.100q, want a receipt", p.name, r, err, text)
	}
	return r
}

// end ends the body and expects that the answer ends.
func (p *linePublisher) end() {
	p.t.Helper()
	p.body.Close()
	p.expectEnd()
}

func (p *linePublisher) expectEnd() {
	p.t.Helper()
	if r, err := p.next(); !errors.Is(err, io.EOF) {
		p.t.Errorf("%s: got %+v (%v), want the end of the answer", p.name, r, err)
	}
}

func envelope(channel string, data any) string {
	return fmt.Sprintf(`{"channel":%q,"data":"%v"}`+"\n", channel, data)
}

// withID is an envelope with an id of its own in the whole hub.
func withID(channel string, n int) string {
	return fmt.Sprintf(`{"channel":%q,"data":"%d","id":"%s-%d"}`+"\n", channel, n, channel, n)
}

const linesRoute = "sse_api /sse* {\n\tunauthenticated\n}\nsse /events* {\n\tallow *\n\tlimits {\n\t\treplay 1000000\n\t}\n}"

// TestLinesInteractive promises that each line is published and answered at
// once, while the request stays open, over every wire: a publisher may wait for
// each answer before it sends the next line.
func TestLinesInteractive(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.caddyfile("", linesRoute))
	s := ssetest.Open(t, nil, fmt.Sprintf("http://localhost:%d/events?channel=a", site.plain), http.Header{})
	s.Expect("hub:open")
	for _, w := range wires {
		t.Run(w.name, func(t *testing.T) {
			interact(t, s, w.client(t), site.url(w, "/sse/publish"))
		})
	}
}

// TestLinesInteractiveAdmin promises the same under Caddy's admin API.
func TestLinesInteractiveAdmin(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	s, _ := l.open("?channel=a")
	interact(t, s, l.once, l.admin+"/sse/publish?hub=default")
}

func interact(t *testing.T, s *ssetest.Stream, client *http.Client, url string) {
	t.Helper()
	p := openLines(t, client, url)
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Accel-Buffering": "no"} {
		if got := p.resp.Header.Get(name); got != want {
			t.Errorf("got %s %q, want %q", name, got, want)
		}
	}
	if p.resp.ProtoMajor == 1 && !p.resp.Close {
		t.Error("what is left of a body that is not read to its end could be taken for another request")
	}
	var last uint64
	for i := range 20 {
		r := p.receipt(envelope("a", i))
		if r.Subscribers != 1 || r.ID.Seq <= last {
			t.Errorf("got %+v after %d", r, last)
		}
		last = r.ID.Seq
		if m := s.Expect("message"); m.Data != fmt.Sprint(i) || m.ID != r.ID.String() {
			t.Errorf("got %+v, want %d at %s", m, i, r.ID)
		}
	}
	if err := p.send("no JSON\n"); err != nil {
		t.Fatal(err)
	}
	if r, err := p.next(); err != nil || r.Status != 400 || r.Line != 21 {
		t.Errorf("got %+v (%v), want a problem with line 21", r, err)
	}
	p.receipt("\n\r\n \n" + envelope("a", "after empty lines"))
	half := envelope("a", "in two parts")
	if err := p.send(half[:10]); err != nil {
		t.Fatal(err)
	}
	p.receipt(half[10:])
	if err := p.send(strings.TrimSuffix(envelope("a", "without an end"), "\n")); err != nil {
		t.Fatal(err)
	}
	p.body.Close()
	if r, err := p.next(); err != nil || r.Status != 0 {
		t.Errorf("got %+v (%v) for a last line without an end", r, err)
	}
	expectData(t, s, "after empty lines", "in two parts", "without an end")
	p.expectEnd()
}

// A lineCase is a line and what it is answered.
type lineCase struct {
	text   string // with its end
	status int    // 0 for a receipt
	field  string
	detail string
}

// lineCases are published with `allow a* b* c*` and a limit of 1 KiB.
func lineCases() []lineCase {
	long := envelope("a", strings.Repeat("x", 1024-len(`{"channel":"a","data":""}`)))
	return []lineCase{
		{envelope("a", 1), 0, "", ""},
		{"oops\n", 400, "", "not valid JSON"},
		{envelope("a", 2), 0, "", ""},
		{"[" + strings.TrimSpace(envelope("a", "no")) + "]\n", 400, "", "object"},
		{"1\n", 400, "", "object"},
		{"null\n", 400, "", "object"},
		{"{}\n", 400, "channels", "at least one"},
		{"{\n", 400, "", "ends before"},
		{`{"channel":"a"} {"channel":"a"}` + "\n", 400, "", "a line of its own"},
		{`{"channel":"a","evnt":"x"}` + "\n", 400, "evnt", "evnt"},
		{`{"channel":"a","data":"` + "\xff" + `"}` + "\n", 400, "", "UTF-8"},
		{`{"channel":"a","data":"` + "\x00" + `"}` + "\n", 400, "", "not valid JSON"},
		{"\x00\n", 400, "", "not valid JSON"},
		{`{"channel":"a","data":"\u0000"}` + "\n", 0, "", ""},
		{`{"channel":"a\u0000"}` + "\n", 400, "channel", `\x00`},
		{`{"channel":"a","event":"hub:x"}` + "\n", 400, "event", "hub:"},
		{`{"channel":"other"}` + "\n", 403, "channel", "allow"},
		{`{"channels":["a","other"]}` + "\n", 403, "channel", "allow"},
		{long, 0, "", ""},
		{" " + long, 413, "", "1024"},
		{strings.Repeat("x", 300_000) + "\n", 413, "", "max_body"},
		{strings.TrimSpace(envelope("a", 3)) + "\r\n", 0, "", ""},
		{`{"channel":"a","id":""}` + "\n", 400, "id", "empty"},
		{`{"channel":"a","id":"x","data":"4"}` + "\n", 0, "", ""},
		{`{"channel":"a","id":"x","data":"no"}` + "\n", 0, "", ""}, // a repeat
		{`{"channel":"b","end":true,"data":"5"}` + "\n", 0, "", ""},
		{`{"channel":"b","data":"no"}` + "\n", 409, "channel", `"b"`},
		{`{"channels":["a","b"],"data":"no"}` + "\n", 409, "channel", `"b"`},
		{`{"channel":"c","end":true,"data":"6"}` + "\n", 0, "", ""},
		{`{"channel":"c","end":true,"data":"no"}` + "\n", 409, "channel", "another name"},
		{envelope("a", 7), 0, "", ""},
	}
}

// TestLinesRefused promises that a line which is refused is told so in its
// place, with its number and what to mend, that nothing of it is published, and
// that the lines around it are: whether they are sent together or one by one.
func TestLinesRefused(t *testing.T) {
	for _, tc := range []struct {
		name  string
		sizes []int // of what is sent at a time, in lines
	}{
		{"together", []int{len(lineCases())}},
		{"one by one", []int{1}},
		{"by threes", []int{3}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := loadLab(t, "", anyChannel+"\n\tsse_api /sse* {\n\t\tunauthenticated\n\t\tallow a* b* c*\n\t\tmax_body 1KiB\n\t}")
			s, _ := l.open("?channel=a&channel=b&channel=c&channel=other")
			p := openLines(t, l.client, l.site+"/sse/publish")
			cases := lineCases()
			var ended sse.Position
			seq := uint64(0)
			for i := 0; i < len(cases); i += tc.sizes[0] {
				var text strings.Builder
				part := cases[i:min(i+tc.sizes[0], len(cases))]
				for _, c := range part {
					text.WriteString(c.text)
				}
				if err := p.send(text.String()); err != nil {
					t.Fatal(err)
				}
				for j, c := range part {
					r, err := p.next()
					if err != nil {
						t.Fatal(err)
					}
					checkLineReply(t, i+j+1, c, r)
					switch repeat := strings.Contains(c.text, `"id":"x"`) && strings.Contains(c.text, "no"); {
					case repeat && r.ID.Seq != seq:
						t.Errorf("a repeat is answered with %s", r.ID)
					case c.status == 0 && !repeat:
						if seq++; r.ID.Seq != seq {
							t.Errorf("line %d: got position %s, want %d", i+j+1, r.ID, seq)
						}
					}
					if strings.HasPrefix(c.text, `{"channel":"b","end"`) {
						ended = r.ID
					}
					if c.status == 409 && c.detail == `"b"` && !strings.Contains(r.Detail, ended.String()) {
						t.Errorf("line %d: the detail does not name %s: %s", i+j+1, ended, r.Detail)
					}
				}
			}
			p.end()
			for _, want := range []string{"1", "2", "\x00", strings.Repeat("x", 999), "3", "4", "5", "6", "7"} {
				m := s.Next()
				for m.Event == "hub:end" {
					m = s.Next()
				}
				if m.Data != want {
					t.Errorf("got %+v, want %q", m, want)
				}
			}
		})
	}
}

func checkLineReply(t *testing.T, number int, want lineCase, got lineReply) {
	t.Helper()
	line := number
	if want.status == 0 {
		line = 0 // receipts do not tell
	}
	if got.Status != want.status || got.Field != want.field || got.Line != line || !strings.Contains(got.Detail, want.detail) || got.Index != nil {
		t.Errorf("line %d: got %+v for %.60q, want status %d, field %q and a detail with %q", number, got, want.text, want.status, want.field, want.detail)
	}
	if (got.ID == sse.Position{}) == (want.status == 0) {
		t.Errorf("line %d: got id %s with status %d", number, got.ID, got.Status)
	}
}

// TestLinesPipelined promises a publisher that does not wait for answers that
// every line is answered in order, and to the subscribers all events in order.
func TestLinesPipelined(t *testing.T) {
	const lines = 20_000
	site := newHubSite(t)
	site.load(t, site.caddyfile("sse {\n history 100000 1h\n }", linesRoute))
	for _, w := range wires {
		t.Run(w.name, func(t *testing.T) {
			s := ssetest.Open(t, nil, fmt.Sprintf("http://localhost:%d/events?channel=%s", site.plain, w.name), http.Header{})
			s.Expect("hub:open")
			p := openLines(t, w.client(t), site.url(w, "/sse/publish"))
			var sending sync.WaitGroup
			sending.Go(func() {
				out := bufio.NewWriterSize(p.body, 10_000)
				for i := range lines {
					_, _ = out.WriteString(envelope(w.name, i)) // Flush tells
				}
				if err := out.Flush(); err != nil {
					t.Error(err)
				}
				p.body.Close()
			})
			first := uint64(0)
			for i := range lines {
				r, err := p.next()
				if first == 0 {
					first = r.ID.Seq
				}
				if err != nil || r.ID.Seq != first+uint64(i) {
					t.Fatalf("line %d: got %+v (%v)", i, r, err)
				}
			}
			p.expectEnd()
			sending.Wait()
			for i := range lines {
				if m := s.Expect("message"); m.Data != fmt.Sprint(i) {
					t.Fatalf("got %q, want %d", m.Data, i)
				}
			}
		})
	}
}

// TestLinesCut promises after a connection is cut that what was answered is
// published, and that repeating all lines by id gives each of them once, those
// that were answered at the positions told.
func TestLinesCut(t *testing.T) {
	const lines = 3000
	for _, w := range wires {
		t.Run(w.name, func(t *testing.T) {
			site := newHubSite(t)
			site.load(t, site.caddyfile("sse {\n history 100000 1h\n }", linesRoute))
			p := openLines(t, w.client(t), site.url(w, "/sse/publish"))
			var sending sync.WaitGroup
			sending.Go(func() {
				for i := range lines {
					if p.send(withID("a", i)) != nil {
						return // cut
					}
				}
			})
			var told []sse.Position
			for len(told) < lines/3 {
				r, err := p.next()
				if err != nil || r.Status != 0 {
					t.Fatalf("got %+v (%v)", r, err)
				}
				told = append(told, r.ID)
			}
			p.cancel()
			p.body.CloseWithError(errors.New("cut"))
			sending.Wait()

			again := openLines(t, w.client(t), site.url(w, "/sse/publish"))
			sending.Go(func() {
				for i := range lines {
					if err := again.send(withID("a", i)); err != nil {
						t.Error(err)
					}
				}
				again.body.Close()
			})
			for i := range lines {
				r, err := again.next()
				if err != nil || r.Status != 0 || (i < len(told) && r.ID != told[i]) || r.ID.Seq != uint64(i+1) {
					t.Fatalf("line %d: got %+v (%v)", i, r, err)
				}
			}
			again.expectEnd()
			sending.Wait()
			s := ssetest.Open(t, nil, fmt.Sprintf("http://localhost:%d/events?channel=a&since=earliest", site.plain), http.Header{})
			s.Expect("hub:open")
			for i := range lines {
				if m := s.Expect("message"); m.Data != fmt.Sprint(i) {
					t.Fatalf("got %q, want %d", m.Data, i)
				}
			}
		})
	}
}

// TestLinesBrokenOff promises that the line in which a body breaks off is not
// published, though it be a whole envelope, and that this is told if it can be;
// the lines before it are published.
func TestLinesBrokenOff(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\t"+openAPI)
	const request = "POST /sse/publish HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/x-ndjson\r\n"
	whole := envelope("a", "whole")
	cut := strings.TrimSpace(envelope("a", "cut"))
	for _, tc := range []struct {
		name, body string
		broken     bool
	}{
		{"by length", fmt.Sprintf("Content-Length: 1000\r\n\r\n%s%s", whole, cut), true},
		{"chunked, in a chunk", fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\nff\r\n%s%s", whole, cut), true},
		{"chunked, without the last chunk", fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s%s\r\n", len(whole)+len(cut), whole, cut), true},
		{"chunked, behind a line", fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(whole), whole), false},
		{"malformed chunk", fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s%s\r\nzz\r\n", len(whole)+len(cut), whole, cut), true},
	} {
		for _, port := range []int{l.sitePort, l.adminPort} {
			before := l.numbers("").Published
			got := l.raw("tcp", fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf(request, port)+tc.body)
			answers := strings.Split(strings.TrimSpace(got.body), "\n")
			if !strings.Contains(answers[0], `"subscribers":0`) {
				t.Errorf("%s: got %q for the line before", tc.name, answers[0])
			}
			if broken := len(answers) == 2 && strings.Contains(answers[1], "broke off") && strings.Contains(answers[1], `"line":2`); broken != tc.broken || len(answers) > 2 {
				t.Errorf("%s: got %q", tc.name, answers)
			}
			if n := l.numbers("").Published - before; n != 1 {
				t.Errorf("%s: %d events were published, want 1", tc.name, n)
			}
		}
	}
}

// TestLinesExpectContinue promises a client that waits for leave to send its
// body, as curl does with -T, that it gets it.
func TestLinesExpectContinue(t *testing.T) {
	l := loadLab(t, "", openAPI)
	for _, port := range []int{l.sitePort, l.adminPort} {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /sse/publish HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n", port)
		answer := bufio.NewReader(conn)
		for _, want := range []int{100, 200} {
			resp, err := http.ReadResponse(answer, nil)
			if err != nil || resp.StatusCode != want {
				t.Fatalf("got %+v (%v), want %d", resp, err, want)
			}
		}
	}
}

// TestLinesBackpressure promises that a publisher which sends without reading
// the answers is held back, not cut off and not read without bound, and that
// nothing is lost when it reads them after all.
func TestLinesBackpressure(t *testing.T) {
	l := loadLab(t, "sse {\n\t\thistory 10 1h\n\t}", anyChannel+"\n\t"+openAPI)
	for _, address := range []string{fmt.Sprintf("127.0.0.1:%d", l.sitePort), fmt.Sprintf("127.0.0.1:%d", l.adminPort)} {
		before := l.numbers("").Published
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "POST /sse/publish HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n", address)
		chunk := strings.Repeat(envelope("a", "x"), 1000)
		chunk = fmt.Sprintf("%x\r\n%s\r\n", len(chunk), chunk)
		sent := 0
		for {
			// It ends when the kernel's buffers are full in both directions.
			if err := conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			n, err := io.WriteString(conn, chunk)
			if err != nil {
				chunk = chunk[n:] // the rest of it
				break
			}
			if sent++; sent > 100_000 {
				t.Fatal("the server reads without end")
			}
		}
		if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
			t.Fatal(err)
		}
		var sending sync.WaitGroup
		sending.Go(func() {
			if _, err := io.WriteString(conn, chunk+"0\r\n\r\n"); err != nil {
				t.Error(err)
			}
		})
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		answers, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		sending.Wait()
		want := 1000 * (sent + 1)
		if n := strings.Count(string(answers), `{"id":`); err != nil || n != want {
			t.Errorf("got %d answers (%v), want %d", n, err, want)
		}
		if n := l.numbers("").Published - before; n != want {
			t.Errorf("%d events were published, want %d", n, want)
		}
	}
}

// TestLinesQuiet promises that a publisher may be quiet for longer than Caddy
// lets others pause within a body. The request beside it is the witness.
func TestLinesQuiet(t *testing.T) {
	site := newHubSite(t)
	config := site.caddyfile("servers :9 {\n}", linesRoute)
	for _, port := range []int{site.plain, site.secure} {
		config = strings.Replace(config, "servers :9 {\n}", fmt.Sprintf("servers 127.0.0.1:%d {\n protocols h1 h2 h2c\n timeouts {\n read_body_idle 50ms\n }\n }\nservers :9 {\n}", port), 1)
	}
	config = strings.Replace(config, fmt.Sprintf("servers 127.0.0.1:%d {\n\t\tprotocols h1 h2c\n\t}\n", site.plain), "", 1)
	config = strings.Replace(config, "servers :9 {\n}", "", 1)
	site.load(t, config)
	for _, w := range wires[:4] {
		t.Run(w.name, func(t *testing.T) {
			p := openLines(t, w.client(t), site.url(w, "/sse/publish"))
			p.receipt(envelope("a", 1))
			body, hold := io.Pipe()
			defer hold.Close()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, site.url(w, "/sse/publish/a"), body)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := w.client(t).Do(req)
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode == 200 {
					t.Error("a body that does not end was published")
				}
			} else if ctx.Err() != nil {
				t.Fatal("the server has no patience to lose")
			}
			p.receipt(envelope("a", 2))
			p.end()
		})
	}
}

// pump publishes lines with ids, a few of them ahead of their answers, until
// the answer ends, which must be in order and clean: not by a broken connection.
// It returns how many were answered.
func (p *linePublisher) pump(channel string, answered chan<- int) (n int) {
	ahead := make(chan struct{}, 20)
	done := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		for i := 0; p.send(withID(channel, i)) == nil; i++ { // until nobody reads any more
			select {
			case ahead <- struct{}{}:
			case <-done:
				return
			}
		}
	})
	defer sending.Wait()
	defer p.body.CloseWithError(io.ErrClosedPipe)
	defer close(done)
	for {
		r, err := p.next()
		if err != nil || r.Status != 0 {
			if !errors.Is(err, io.EOF) {
				p.t.Errorf("%s: got %+v (%v) after %d answers", p.name, r, err, n)
			}
			return n
		}
		n++
		<-ahead
		select {
		case answered <- n:
		default:
		}
	}
}

// TestLinesReload promises that a reload ends the requests in an orderly way:
// what was read is answered, the answer ends, the reload need not wait, and
// going on by id publishes each line once and in order.
func TestLinesReload(t *testing.T) {
	site := newHubSite(t)
	admin := caddytest.FreePort(t)
	config := func(more string) string {
		return strings.Replace(site.caddyfile("sse {\n history 1000000 1h\n }", linesRoute+more), "admin off", fmt.Sprintf("admin localhost:%d", admin), 1)
	}
	site.load(t, config(""))
	type door struct {
		wire
		url string
	}
	var doors []door
	for _, w := range wires {
		doors = append(doors, door{w, site.url(w, "/sse/publish")})
	}
	doors = append(doors, door{wires[0], fmt.Sprintf("http://localhost:%d/sse/publish", admin)})
	doors[len(doors)-1].name = "admin"

	var pumping sync.WaitGroup
	counts := make([]int, len(doors))
	quiet := make([]*linePublisher, len(doors))
	for i, d := range doors {
		quiet[i] = openLines(t, d.client(t), d.url)
		quiet[i].receipt(envelope("quiet", 1))
		p, answered := openLines(t, d.client(t), d.url), make(chan int)
		pumping.Go(func() { counts[i] = p.pump(d.name, answered) })
		<-answered
	}
	site.load(t, config("\nrespond /new 200"))
	pumping.Wait()
	for i, d := range doors {
		quiet[i].expectEnd()
		kept := site.keptEvents(t, d.name)
		if kept < counts[i] {
			t.Errorf("%s: %d events are kept, but %d were acknowledged", d.name, kept, counts[i])
		}
		p := openLines(t, d.client(t), d.url)
		pumping.Go(func() {
			for n := range kept + 10 {
				if err := p.send(withID(d.name, n)); err != nil {
					t.Error(err)
				}
			}
			p.body.Close()
		})
		for range kept + 10 {
			if r, err := p.next(); err != nil || r.Status != 0 {
				t.Errorf("%s: got %+v (%v)", d.name, r, err)
			}
		}
		p.expectEnd()
		pumping.Wait()
		if n := site.keptEvents(t, d.name); n != kept+10 {
			t.Errorf("%s: %d events are kept after a repeat of all, want %d", d.name, n, kept+10)
		}
		s := ssetest.Open(t, nil, fmt.Sprintf("http://localhost:%d/events?channel=%s&since=earliest", site.plain, d.name), http.Header{})
		s.Expect("hub:open")
		for n := range kept + 10 {
			expectData(t, s, fmt.Sprint(n))
		}
		s.Close()
	}
}

// TestLinesStop promises that stopping the configuration ends the requests,
// cleanly.
func TestLinesStop(t *testing.T) {
	l := loadLab(t, "", openAPI)
	var open []*linePublisher
	for _, door := range doors(l)[:2] {
		p := openLines(t, l.client, door.base+"/publish")
		p.receipt(envelope("a", 1))
		open = append(open, p)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, p := range open {
		p.expectEnd()
	}
}

// TestLinesExit promises that requests which are open do not keep Caddy from
// stopping, for which it would wait without end, on whatever wire: neither of
// one who is quiet nor of one who never reads the answers.
func TestLinesExit(t *testing.T) {
	site := newHubSite(t)
	admin := fmt.Sprintf("localhost:%d", caddytest.FreePort(t))
	process := site.run(t, strings.Replace(site.caddyfile("", linesRoute), "admin off", "admin "+admin, 1))
	var open []*linePublisher
	for _, w := range wires[:4] { // Caddy waits for connections over HTTP/3, whether they are used or not
		open = append(open, openLines(t, w.client(t), site.url(w, "/sse/publish")))
	}
	open = append(open, openLines(t, wires[0].client(t), "http://"+admin+"/sse/publish"))
	for _, p := range open {
		p.receipt(envelope("a", 1))
	}
	var flooding sync.WaitGroup
	var stuck []*linePublisher
	for _, i := range []int{0, 2} { // HTTP/1.1 and HTTP/2
		p := openLines(t, wires[i].client(t), site.url(wires[i], "/sse/publish"))
		stuck = append(stuck, p)
		chunk := strings.Repeat("?\n", 1000) // each has a long answer
		var sent atomic.Int64
		flooding.Go(func() {
			for p.send(chunk) == nil {
				sent.Add(1)
			}
		})
		awaitStandstill(t, &sent)
	}
	stop(t, process, syscall.SIGTERM, 2*patience)
	for _, p := range open {
		p.expectEnd()
	}
	for _, p := range stuck {
		p.cancel()
	}
	flooding.Wait()
}

// awaitStandstill waits until a counter counts no more.
func awaitStandstill(t *testing.T, n *atomic.Int64) {
	t.Helper()
	last, since := int64(0), time.Now()
	await(t, func() bool {
		if now := n.Load(); now != last || now == 0 {
			last, since = now, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	}, func() string { return "the server reads without end" })
}
