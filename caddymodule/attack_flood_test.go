package caddymodule_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// Bounds of what an attack may cost. They are far above what it does cost, and far
// below what it would without bounds.
const (
	// floodHeap is how much more the heap of the server may hold after a flood
	// than before, when its garbage is collected.
	floodHeap = 48 << 20
	// floodRSS is the most memory that the server may have of the system.
	floodRSS = 1500 << 20
)

// A flood is a Caddy in a process of its own, with an honest subscriber.
type flood struct {
	*lab
	process *caddytest.Process
	honest  *ssetest.Stream
	heap    int64
	sent    int
}

func newFlood(t *testing.T) *flood {
	f := &flood{lab: newLab(t)}
	f.process = caddytest.Run(t, fmt.Sprintf(`{
	admin 127.0.0.1:%d
	log {
		level ERROR
	}
	sse {
		memory 16MiB
	}
}
http://127.0.0.1:%d {
	sse /events* {
		allow *
	}
	sse_api /api* {
		token token
	}
}
`, f.adminPort, f.sitePort))
	f.process.WaitServing(t, f.admin+"/sse/health")
	f.process.WaitServing(t, f.site+"/api")
	f.honest, _ = f.open("?channel=honest")
	f.still("before the flood")
	f.heap = f.heapInUse()
	return f
}

// still checks that the server publishes, delivers and is well.
func (f *flood) still(when string) {
	f.t.Helper()
	f.sent++
	data := strconv.Itoa(f.sent)
	if r := f.publish("honest", data); r.Subscribers != 1 {
		f.t.Errorf("%s: a publish reached %d", when, r.Subscribers)
	}
	expectData(f.t, f.honest, data)
	if got := f.do("GET", f.admin+"/sse/health", ""); got.StatusCode != 200 {
		f.t.Errorf("%s: the hub is not well: %d %s", when, got.StatusCode, got.body)
	}
}

// over checks what remains of a flood: nothing but the honest stream.
func (f *flood) over() {
	f.t.Helper()
	eventually(f.t, "the streams of the flood have ended", func() bool { return f.numbers("").Streams == 1 })
	f.still("after the flood")
	heap := f.heapInUse()
	// It may take a moment until the last handler has returned.
	for deadline := time.Now().Add(5 * time.Second); heap > f.heap+floodHeap && time.Now().Before(deadline); {
		heap = f.heapInUse()
	}
	if heap > f.heap+floodHeap {
		f.t.Errorf("the server still holds %d MiB, of %d before", heap>>20, f.heap>>20)
	}
	f.t.Logf("heap %d KiB before, %d KiB after; at most %d MiB in all", f.heap>>10, heap>>10, f.peak()>>20)
	if peak := f.peak(); peak > floodRSS {
		f.t.Errorf("the server had %d MiB of memory, more than %d", peak>>20, floodRSS>>20)
	}
	if log := f.process.Output.String(); strings.Contains(log, "panic") {
		f.t.Errorf("something panicked: %.2000s", log)
	}
}

// heapInUse has the server collect its garbage, and returns what is left.
func (f *flood) heapInUse() int64 {
	f.t.Helper()
	for range 2 {
		f.do("GET", f.admin+"/debug/pprof/heap?gc=1", "")
	}
	for line := range strings.Lines(f.do("GET", f.admin+"/metrics", "").body) {
		if value, ok := strings.CutPrefix(line, "go_memstats_heap_alloc_bytes "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				f.t.Fatal(err)
			}
			return int64(n)
		}
	}
	f.t.Fatal("the metrics have no heap")
	return 0
}

// peak returns the most memory that the server has had, in bytes; zero where the
// system does not say so in /proc.
func (f *flood) peak() int64 {
	f.t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.process.Process.Pid))
	if err != nil {
		f.t.Fatal(err)
	}
	var kib int64
	_, after, _ := bytes.Cut(status, []byte("VmHWM:"))
	if _, err := fmt.Sscan(string(after), &kib); err != nil {
		f.t.Fatal(err)
	}
	return kib << 10
}

// dial opens connections that each send the same, and returns them. It closes them
// when the test ends, too.
func (f *flood) dial(n int, send string) (conns []net.Conn) {
	f.t.Helper()
	f.t.Cleanup(func() { hangUp(conns) })
	for range n {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.sitePort))
		if err != nil {
			f.t.Fatal(err)
		}
		conns = append(conns, conn)
		if _, err := io.WriteString(conn, send); err != nil {
			f.t.Fatal(err)
		}
	}
	return conns
}

func hangUp(conns []net.Conn) {
	for _, conn := range conns {
		conn.Close()
	}
}

// TestAttackHalfOpen promises that 10,000 clients which never finish the header of
// their request, or finish it byte by byte, keep nobody from publishing and
// listening, and leave nothing behind.
func TestAttackHalfOpen(t *testing.T) {
	f := newFlood(t)
	conns := f.dial(10_000, "GET /events?channel=a HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
	f.still("with half-open requests")
	for _, b := range []byte("slowly!") {
		for _, conn := range conns {
			if _, err := conn.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		f.still("while headers come slowly")
	}
	hangUp(conns)
	f.over()
}

// TestAttackSlowBodies promises that clients who send a body slowly, or announce one
// that they never send, hold only what they sent, within the limit, and keep nobody
// from publishing and listening, whether they may do what they ask for or not.
func TestAttackSlowBodies(t *testing.T) {
	f := newFlood(t)
	half := strings.Repeat("x", 60_000)
	for _, tc := range []struct {
		name, head string
	}{
		{"without a token", "POST /api/publish/a HTTP/1.1\r\nHost: %[1]s\r\nContent-Length: 1000000000\r\n\r\n"},
		{"with a wrong token", "POST /api/publish HTTP/1.1\r\nHost: %[1]s\r\nAuthorization: Bearer x\r\nTransfer-Encoding: chunked\r\n\r\nea60\r\n"},
		{"of an unknown connection", "POST /events?connection=" + unknownID + " HTTP/1.1\r\nHost: %[1]s\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"},
		{"of the wrong type", "POST /events HTTP/1.1\r\nHost: %[1]s\r\nContent-Length: 100000\r\n\r\n"},
		{"of a publish", "POST /api/publish/a HTTP/1.1\r\nHost: %[1]s\r\nAuthorization: Bearer token\r\nContent-Length: 100000\r\n\r\n"},
		{"of a change", "POST /events?connection=" + aliceID + " HTTP/1.1\r\nHost: %[1]s\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"},
		{"of lines", "POST /api/publish HTTP/1.1\r\nHost: %[1]s\r\nAuthorization: Bearer token\r\nContent-Type: application/x-ndjson\r\nContent-Length: 100000\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := *f
			g.lab = f.in(t)
			own, _ := g.open("?channel=a&connection=" + aliceID)
			conns := g.dial(1000, fmt.Sprintf(tc.head, fmt.Sprintf("127.0.0.1:%d", f.sitePort))+half)
			g.still("with slow bodies")
			g.still("while they go on")
			hangUp(conns)
			own.Close()
			g.over()
			f.sent = g.sent
		})
	}
}

// TestAttackNeverReads promises that clients which open streams and read nothing
// cost the others nothing, and the server a bounded number of bytes, however much
// is published.
func TestAttackNeverReads(t *testing.T) {
	f := newFlood(t)
	conns := f.dial(500, fmt.Sprintf("GET /events?channel=loud&channel=loud* HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", f.sitePort))
	eventually(t, "they listen", func() bool { return f.numbers("").Streams == 501 })
	event := `{"channel":"loud","data":"` + strings.Repeat("x", 10_000) + `"}`
	batch := "[" + strings.Repeat(event+",", 49) + event + "]"
	for range 100 { // 50 MB for each of them
		if got := f.do("POST", f.admin+"/sse/publish", batch, jsonType); got.StatusCode != 200 {
			t.Fatalf("a publish was answered %d %s", got.StatusCode, got.body)
		}
	}
	f.still("while nobody else reads")
	if kept := f.numbers("").KeptBytes; kept > 16<<20 {
		t.Errorf("the hub keeps %d bytes, more than its memory", kept)
	}
	hangUp(conns)
	f.over()
}

// TestAttackComeAndGo promises that clients which open a stream, change it and go
// leave a bounded number of sessions, of bounded size: what else was in their
// requests is not kept.
func TestAttackComeAndGo(t *testing.T) {
	f := newFlood(t)
	const clients, each = 8, 1500
	padding := "&padding=" + strings.Repeat("x", 15_000)
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var failed atomic.Value
	come := func(id string) error {
		stream, err := client.Get(f.site + "/events?channel=a&connection=" + id + padding)
		if err != nil {
			return err
		}
		defer stream.Body.Close()
		resp, err := client.Post(f.site+"/events/subscribe/b"+id+"?connection="+id+padding, "", nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 {
			return fmt.Errorf("%d %s %w", resp.StatusCode, body, err)
		}
		return nil
	}
	var running sync.WaitGroup
	for c := range clients {
		running.Go(func() {
			for i := range each {
				if err := come(fmt.Sprintf("%s%02d%06d", aliceID[:24], c, i)); err != nil {
					failed.Store(err)
					return
				}
			}
		})
	}
	running.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(err)
	}
	f.still("when they have gone")
	eventually(t, "their streams have ended", func() bool { return f.numbers("").Streams == 1 })
	n := f.numbers("")
	if n.Away > 10_000 || n.Away+n.Forgotten != clients*each {
		t.Errorf("of %d sessions %d are kept, and %d forgotten", clients*each, n.Away, n.Forgotten)
	}
	f.over()
}
