package caddymodule_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
)

const newsEvents = "/events?channel=news"

// openAll opens a stream of the channel over every wire.
func (s hubSite) openAll(t testing.TB, path string, header http.Header) (streams []*rawStream, opens []opening) {
	t.Helper()
	for _, w := range wires {
		stream, first := openRaw(t, w.client(t), s.url(w, path), header)
		stream.name = w.name
		streams, opens = append(streams, stream), append(opens, parseOpen(t, first))
	}
	return streams, opens
}

// expectOnAll reads an event off each stream.
func expectOnAll(t testing.TB, streams []*rawStream, want string) {
	t.Helper()
	for _, stream := range streams {
		if frame := stream.frame(); field(frame, "data") != want || field(frame, "event") != "" {
			t.Errorf("%s: got %q, want data %q", stream.name, frame, want)
		}
	}
}

func (s hubSite) keptEvents(t testing.TB, channel string) int {
	t.Helper()
	var info struct{ Events int }
	s.call(t, http.MethodGet, "/channels/"+channel, "", "", &info)
	return info.Events
}

// TestReloadKeepsStreams holds promise 4: a reload drops no stream whose route
// is still there, over no HTTP version, while the hub takes on its new
// settings.
func TestReloadKeepsStreams(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.caddyfile("sse {\n history 1000 1h\n }", newsRoute))
	streams, _ := site.openAll(t, newsEvents, nil)
	for i := range 5 {
		site.publish(t, "news", "", "before "+strconv.Itoa(i))
		expectOnAll(t, streams, "before "+strconv.Itoa(i))
	}
	site.load(t, site.caddyfile("sse {\n history 2 1h\n }", newsRoute+"\n respond /new 200"))
	if got := site.keptEvents(t, "news"); got != 2 {
		t.Errorf("after a reload with history 2 the channel keeps %d events, want 2", got)
	}
	for i := range 5 {
		site.publish(t, "news", "", "after "+strconv.Itoa(i))
		expectOnAll(t, streams, "after "+strconv.Itoa(i))
	}
	if got := site.numbers(t); got.Streams != len(streams) || got.Published != 10 {
		t.Errorf("the hub's numbers are %+v, want %d streams and 10 published: both go on over a reload", got, len(streams))
	}
}

// TestReloadsUnderPublishing holds promises 1, 2 and 4 over ten reloads while
// events are published: every event that was answered 200 arrives once and in
// order, on the streams that were open and on one that resumes.
func TestReloadsUnderPublishing(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.caddyfile("", newsRoute))
	streams, _ := site.openAll(t, newsEvents, nil)
	start := streams[0].lastID
	ctx, stop := context.WithCancel(t.Context())
	acknowledged := make(map[int]bool)
	last := 0
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for ctx.Err() == nil && last < 900 { // 1000 are kept
			last++
			err := site.tryCall(t.Context(), http.MethodPost, "/publish/news", "text/plain", strconv.Itoa(last), nil)
			switch {
			case err == nil:
				acknowledged[last] = true
			case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
				// Caddy itself loses connections that wait for being
				// accepted when it reloads: each configuration has a
				// socket of its own.
			default:
				t.Errorf("publish %d: %s", last, err)
			}
		}
	})
	for i := range 10 {
		before := site.numbers(t).Published
		site.load(t, site.caddyfile("", newsRoute+fmt.Sprintf("\n respond /new%d 200", i)))
		await(t, func() bool { return site.numbers(t).Published > before },
			func() string { return "nothing is published any more" })
	}
	stop()
	publishing.Wait()
	site.publish(t, "news", "", "0")
	t.Logf("%d events, of which %d were acknowledged", last, len(acknowledged))

	resumed, opens := site.openAll(t, newsEvents, http.Header{"Last-Event-Id": {start}})
	for i, o := range opens {
		if o.Resume != "complete" {
			t.Errorf("%s: resume over ten reloads is %q %v, want complete", resumed[i].name, o.Resume, o.Reset)
		}
	}
	for _, stream := range append(streams, resumed...) {
		missing, latest := maps.Clone(acknowledged), 0
		for {
			n, err := strconv.Atoi(field(stream.frame(), "data"))
			if n == 0 && err == nil {
				break
			}
			if n <= latest {
				t.Errorf("%s: event %d came after event %d", stream.name, n, latest)
			}
			latest = n
			delete(missing, n)
		}
		if len(missing) > 0 {
			t.Errorf("%s: acknowledged events did not arrive: %v", stream.name, slices.Sorted(maps.Keys(missing)))
		}
	}
}

// TestReloadRouteGone holds the promise that a stream does not outlive its
// route: it is told hub:close and ends.
func TestReloadRouteGone(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.caddyfile("", newsRoute))
	streams, _ := site.openAll(t, newsEvents, nil)
	site.load(t, site.caddyfile("", "respond /events* 404"))
	for _, stream := range streams {
		stream.expectClose("drain")
	}
	site.awaitStreams(t, 0)
}

// TestReloadOneOfTwoRoutesGone holds the same promise where another site has a
// route with the same settings.
func TestReloadOneOfTwoRoutesGone(t *testing.T) {
	site := newHubSite(t)
	goes, stays := caddytest.FreePort(t), caddytest.FreePort(t)
	other := func(port int) string {
		return fmt.Sprintf("\nhttp://localhost:%d {\n %s\n }\n", port, newsRoute)
	}
	config := site.caddyfile("", "respond 404")
	site.load(t, config+other(goes)+other(stays))
	gone, _ := openRaw(t, wires[0].client(t), fmt.Sprintf("http://localhost:%d%s", goes, newsEvents), nil)
	stayed, _ := openRaw(t, wires[0].client(t), fmt.Sprintf("http://localhost:%d%s", stays, newsEvents), nil)

	site.load(t, config+other(stays))
	site.publish(t, "news", "", "after")
	expectOnAll(t, []*rawStream{stayed}, "after")
	if frame, err := gone.tryFrame(); field(frame, "event") != "hub:close" {
		t.Errorf("the stream of a site that is gone got %q (%v), want hub:close", frame, err)
	}
}

// TestReloadRouteMoved holds the same promise where the route is elsewhere now,
// or lets others in: what the stream was opened on is gone. Each of these once
// went unseen, as Caddy takes the configuration apart while it sets it up.
func TestReloadRouteMoved(t *testing.T) {
	const named = "&(stream) {\n\tsse {\n\t\tallow news*\n\t}\n}\n"
	for _, tc := range []struct{ name, blocks, before, after string }{
		{"path", "", newsRoute, strings.Replace(newsRoute, "/events*", "/elsewhere*", 1)},
		{"in a handle", "", "handle /events* {" + newsRoute + "\n}", "handle /events/more* {" + newsRoute + "\n}"},
		{
			"not", "",
			"@in {\n path /events*\n not remote_ip 10.0.0.0/8\n}\nsse @in {\n allow news*\n}",
			"@in {\n path /events*\n not remote_ip 127.0.0.0/8\n}\nsse @in {\n allow news*\n}",
		},
		{"named route", named, "invoke /events* stream", "invoke /other* stream"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			site := newHubSite(t)
			config := func(route string) string {
				options := site.globals("")
				return options + tc.blocks + strings.TrimPrefix(site.caddyfile("", route), options)
			}
			site.load(t, config(tc.before))
			stream, _ := openRaw(t, wires[0].client(t), site.url(wires[0], newsEvents), nil)
			site.load(t, config(tc.after))
			site.publish(t, "news", "", "after")
			if frame, err := stream.tryFrame(); field(frame, "event") != "hub:close" {
				t.Errorf("the stream of a route that is gone got %q (%v), want hub:close", frame, err)
			}
		})
	}
}

// TestReloadHubGone holds the promises that streams of a hub that is no longer
// configured end, and that a hub that returns without its record says so.
func TestReloadHubGone(t *testing.T) {
	site := newHubSite(t)
	config := site.caddyfile("", newsRoute)
	site.load(t, config)
	streams, _ := site.openAll(t, newsEvents, nil)
	lastID := site.publish(t, "news", "", "one")
	expectOnAll(t, streams, "one")
	site.load(t, site.globals("")+fmt.Sprintf("\nhttps://localhost:%d {\n respond 404\n }\n", site.secure))
	for _, stream := range streams {
		stream.expectClose("drain")
	}
	site.load(t, config)
	streams, opens := site.openAll(t, newsEvents, http.Header{"Last-Event-Id": {lastID}})
	for i, o := range opens {
		expectEpochReset(t, streams[i].name, o)
	}
	site.publish(t, "news", "", "two")
	expectOnAll(t, streams, "two")
}

func expectEpochReset(t testing.TB, name string, o opening) {
	t.Helper()
	if o.Resume != "reset" || len(o.Reset) != 1 || o.Reset[0].Channel != "news" || o.Reset[0].Reason != "epoch" {
		t.Errorf("%s: the stream opens with %+v, want resume reset of news with reason epoch", name, o)
	}
}

// TestReloadRefused holds the promise that a configuration which cannot be
// loaded changes nothing: not the streams, not the events kept, not the
// references by which the next good one keeps or ends them.
func TestReloadRefused(t *testing.T) {
	occupied, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer occupied.Close()
	const narrower = "sse {\n history 1 1h\n }\n"
	for _, tt := range []struct{ name, options, route, more string }{
		{"in the hub", "sse {\n history 1 1h\n memory 1KiB\n }", newsRoute, ""},
		{"in the route", narrower, "sse /events* {\n hub nowhere\n allow news*\n }", ""},
		{"in a second route", narrower, newsRoute + "\n sse /other* {\n hub nowhere\n allow news*\n }", ""},
		{"elsewhere", narrower, newsRoute + "\n tls /nowhere/cert.pem /nowhere/key.pem", ""},
		// Apps are started in random order, hence more than once.
		{"at the start", narrower, newsRoute, fmt.Sprintf("\nhttp://%s {\n respond 200\n }\n", occupied.Addr())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			site := newHubSite(t)
			good := site.caddyfile("", newsRoute)
			site.load(t, good)
			streams, _ := site.openAll(t, newsEvents, nil)
			for i := range 5 {
				site.publish(t, "news", "", strconv.Itoa(i))
				expectOnAll(t, streams, strconv.Itoa(i))
			}
			for range 8 {
				if err := caddytest.TryLoad(t, site.caddyfile(tt.options, tt.route)+tt.more); err == nil {
					t.Fatal("the configuration was accepted, so the test shows nothing")
				}
				if got := site.keptEvents(t, "news"); got != 5 {
					t.Fatalf("after a configuration that was refused the channel keeps %d events, want all 5", got)
				}
			}
			site.publish(t, "news", "", "after")
			expectOnAll(t, streams, "after")
			site.load(t, site.caddyfile("", newsRoute+"\n respond /good 200"))
			site.publish(t, "news", "", "good")
			expectOnAll(t, streams, "good")
			site.load(t, site.caddyfile("", "respond 404"))
			for _, stream := range streams {
				stream.expectClose("drain")
			}
		})
	}
}

// run starts a Caddy process on a Caddyfile and waits for all of its ports.
func (s hubSite) run(t testing.TB, caddyfile string) *caddytest.Process {
	t.Helper()
	process := caddytest.Run(t, caddyfile)
	process.WaitServing(t, s.apiURL("/health"))
	awaitTLS(t, s.secure)
	return process
}

// stop sends the signal and waits for the exit, which must be a success.
func stop(t testing.TB, process *caddytest.Process, signal os.Signal, within time.Duration) {
	t.Helper()
	start := time.Now()
	if err := process.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	if err := process.Wait(within); err != nil {
		t.Errorf("%s after %s: %s", time.Since(start).Round(time.Millisecond), signal, err)
	}
	t.Logf("ended %s after %s", time.Since(start).Round(time.Millisecond), signal)
}

// reloadProcess loads the Caddyfile, even if it is the one that is loaded.
func reloadProcess(t testing.TB, admin, caddyfile string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+admin+"/load", strings.NewReader(caddyfile))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "text/caddyfile")
	req.Header.Set("Cache-Control", "must-revalidate")
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Fatalf("reload: %s %s", resp.Status, answer)
	}
}

// TestExit holds the promises that streams do not keep Caddy from stopping,
// for which it would wait without end by default, that each is told, and that
// the next process tells its clients that the record began anew.
func TestExit(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			site := newHubSite(t)
			admin := fmt.Sprintf("127.0.0.1:%d", caddytest.FreePort(t))
			config := strings.Replace(site.caddyfile("", newsRoute), "admin off", "admin "+admin, 1)
			process := site.run(t, config)
			streams, _ := site.openAll(t, newsEvents, nil)
			// From here on the streams belong to a configuration of the past.
			reloadProcess(t, admin, config)
			lastID := site.publish(t, "news", "", "one")
			expectOnAll(t, streams, "one")
			var reading sync.WaitGroup
			for _, stream := range streams {
				reading.Go(func() { stream.expectClose("drain") })
			}
			stop(t, process, signal, 5*time.Second)
			reading.Wait()

			site.run(t, config)
			streams, opens := site.openAll(t, newsEvents, http.Header{"Last-Event-Id": {lastID}})
			for i, o := range opens {
				expectEpochReset(t, streams[i].name, o)
			}
			site.publish(t, "news", "", "two")
			expectOnAll(t, streams, "two")
		})
	}
}

// TestExitClientDoesNotRead holds the promise that a client which does not read
// at all, on whatever level, does not keep Caddy from stopping.
func TestExitClientDoesNotRead(t *testing.T) {
	type opener func(t *testing.T, site hubSite)
	byBody := func(w wire) opener { // its connection is read, its stream is not
		return func(t *testing.T, site hubSite) { openRaw(t, w.client(t), site.url(w, newsEvents), nil) }
	}
	for _, tt := range []struct {
		name string
		open opener
	}{
		{"http1 connection", func(t *testing.T, site hubSite) { requestHTTP1(t, dialUnread(t, site.plain)) }},
		{"http1 connection with TLS", func(t *testing.T, site hubSite) { requestHTTP1(t, dialUnreadTLS(t, site.secure, "http/1.1")) }},
		{"http2 connection", func(t *testing.T, site hubSite) {
			requestHTTP2(t, dialUnreadTLS(t, site.secure, "h2"), "https", site.secure)
		}},
		{"http2 cleartext connection", func(t *testing.T, site hubSite) { requestHTTP2(t, dialUnread(t, site.plain), "http", site.plain) }},
		{"http2 stream", byBody(wires[2])},
		{"http2 cleartext stream", byBody(wires[3])},
		{"http3 stream", byBody(wires[4])},
	} {
		t.Run(tt.name, func(t *testing.T) {
			site := newHubSite(t)
			process := site.run(t, site.caddyfile("", newsRoute))
			tt.open(t, site)
			site.awaitStreams(t, 1)
			// More than the largest socket buffers and HTTP windows.
			data := strings.Repeat("x", 2<<20)
			for range 16 {
				site.publish(t, "news", "", data)
			}
			blocked(t, site)
			stop(t, process, syscall.SIGTERM, 10*time.Second)
		})
	}
}

// blocked waits until the hub cannot write to its only stream any more.
func blocked(t testing.TB, site hubSite) {
	t.Helper()
	var last hubNumbers
	same := 0
	await(t, func() bool {
		now := site.numbers(t)
		if now.Delivered != last.Delivered {
			same = 0
		}
		same++
		last = now
		return same == 20
	}, func() string { return fmt.Sprintf("the stream is still written to: %+v", last) })
	if last.Delivered >= last.Published || last.Streams != 1 {
		t.Fatalf("the stream is not blocked, so the test shows nothing: %+v", last)
	}
}

func dialUnread(t testing.TB, port int) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	return conn
}

func dialUnreadTLS(t testing.TB, port int, proto string) net.Conn {
	t.Helper()
	config := insecure()
	config.ServerName, config.NextProtos = "localhost", []string{proto}
	conn := tls.Client(dialUnread(t, port), config)
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != proto {
		t.Fatalf("the protocol is %q, want %q", got, proto)
	}
	return conn
}

func requestHTTP1(t testing.TB, conn net.Conn) {
	t.Helper()
	if _, err := io.WriteString(conn, "GET "+newsEvents+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}

// requestHTTP2 asks for a stream and gives it windows without a practical end,
// so that the connection itself is what fills up.
func requestHTTP2(t testing.TB, conn net.Conn, scheme string, port int) {
	t.Helper()
	var out, header bytes.Buffer
	out.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&out, nil)
	encoder := hpack.NewEncoder(&header)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "GET"},
		{Name: ":scheme", Value: scheme},
		{Name: ":authority", Value: fmt.Sprintf("localhost:%d", port)},
		{Name: ":path", Value: newsEvents},
	} {
		if err := encoder.WriteField(f); err != nil {
			t.Fatal(err)
		}
	}
	const most = 1<<31 - 1
	for _, err := range []error{
		framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: most}),
		framer.WriteSettingsAck(),
		framer.WriteWindowUpdate(0, most-65535),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header.Bytes(), EndHeaders: true, EndStream: true}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Write(out.Bytes()); err != nil {
		t.Fatal(err)
	}
}
