//go:build linux

package sse_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A directServer serves streams of a hub by the direct engine, over TCP, TLS or a
// Unix socket.
type directServer struct {
	*httptest.Server
	hub     *sse.Hub
	tuning  *sse.Tuning
	ends    chan sse.End
	options sse.SubscribeOptions
	// sendBuffer is the size of the sockets' buffers; zero is the system's.
	sendBuffer int
	refused    chan bool // what Direct did not take
}

var directWires = []string{"tcp", "tls", "unix"}

type connKey struct{}

// An ownerFunc is an owner that is told by a function.
type ownerFunc func(sse.End)

func (f ownerFunc) Ended(end sse.End) { f(end) }

func startDirect(t testing.TB, wire string, h *sse.Hub, options sse.StreamOptions) *directServer {
	t.Helper()
	s := &directServer{
		Server: httptest.NewUnstartedServer(nil), hub: h, tuning: sse.NewTuning(options),
		ends: make(chan sse.End, 1000), refused: make(chan bool, 1000),
	}
	s.Config.Handler = http.HandlerFunc(s.serve)
	s.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, conn)
	}
	switch wire {
	case "tls":
		s.EnableHTTP2 = false
		s.StartTLS()
	case "unix":
		listener, err := net.Listen("unix", t.TempDir()+"/socket")
		if err != nil {
			t.Fatal(err)
		}
		s.Listener.Close()
		s.Listener = listener
		s.Start()
	default:
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func (s *directServer) serve(w http.ResponseWriter, r *http.Request) {
	options := s.options
	options.Channels = r.URL.Query()["channel"]
	start, err := sse.ParseStart(r.Header.Get("Last-Event-ID"))
	if err == nil && r.Header.Get("Last-Event-ID") != "" {
		options.Start = start
	}
	subscriber, err := s.hub.Subscribe(r.Context(), options)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	conn := r.Context().Value(connKey{}).(net.Conn)
	if s.sendBuffer > 0 {
		setWriteBuffer(conn, s.sendBuffer)
	}
	if !subscriber.Direct(w, conn, s.tuning, ownerFunc(func(end sse.End) { s.ends <- end })) {
		s.refused <- true
		s.ends <- subscriber.Stream(r.Context(), w, s.tuning)
	}
}

// setWriteBuffer makes the kernel's buffer of a connection that small, but of one
// under TLS not smaller than the direct engine needs it.
func setWriteBuffer(conn net.Conn, bytes int) {
	if over, ok := conn.(*tls.Conn); ok {
		conn, bytes = over.NetConn(), max(bytes, 32<<10) // the kernel doubles it
	}
	_ = conn.(interface{ SetWriteBuffer(int) error }).SetWriteBuffer(bytes)
}

// A directClient is a stream of a directServer.
type directClient struct {
	net.Conn
	answer *http.Response
	body   *bufio.Reader
}

func (s *directServer) connect(t testing.TB) net.Conn {
	t.Helper()
	address := s.Listener.Addr()
	conn, err := net.Dial(address.Network(), address.String())
	if err == nil && s.TLS != nil {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// open opens a stream by a request with more header lines, and reads its head.
func (s *directServer) open(t testing.TB, query string, header ...string) *directClient {
	t.Helper()
	c := &directClient{Conn: s.connect(t)}
	_, err := fmt.Fprintf(c, "GET /?%s HTTP/1.1\r\nHost: example.com\r\n%s\r\n", query, strings.Join(append(header, ""), "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	c.body = bufio.NewReader(c)
	if c.answer, err = http.ReadResponse(c.body, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.answer.Body.Close() })
	c.body = bufio.NewReader(c.answer.Body)
	return c
}

// directPatience bounds the waits of these tests.
const directPatience = 20 * time.Second

// frame reads a frame.
func (c *directClient) frame(t testing.TB) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(directPatience)); err != nil {
		t.Fatal(err)
	}
	var frame strings.Builder
	for !strings.HasSuffix(frame.String(), "\n\n") {
		line, err := c.body.ReadString('\n')
		frame.WriteString(line)
		if err != nil {
			t.Fatalf("after %q: %v", frame.String(), err)
		}
	}
	return frame.String()
}

// rest reads until the server ends the stream.
func (c *directClient) rest(t testing.TB) []byte {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(directPatience)); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(c.body)
	if err != nil {
		t.Fatalf("the stream does not end as it should: %v, after %d bytes", err, len(all))
	}
	return all
}

func (s *directServer) end(t testing.TB) sse.End {
	t.Helper()
	select {
	case end := <-s.ends:
		return end
	case <-time.After(directPatience):
		t.Fatal("the stream does not end")
		return sse.End{}
	}
}

// TestDirect promises that the direct engine sends what the stream engine does,
// with a body that ends with the connection, and tells how the stream ended.
func TestDirect(t *testing.T) {
	for _, wire := range directWires {
		t.Run(wire, func(t *testing.T) {
			h := newHub(t, sse.Options{})
			s := startDirect(t, wire, h, quiet)
			publishN(t, h, 2, "a")
			c := s.open(t, "channel=a&channel=b", "Last-Event-ID: "+at(h, 1).String())
			if got := c.answer.Header.Get("Content-Type"); got != "text/event-stream" {
				t.Errorf("the media type is %q", got)
			}
			if len(c.answer.TransferEncoding) > 0 || !c.answer.Close {
				t.Errorf("transfer encoding %q, close %t; the body is to end with the connection", c.answer.TransferEncoding, c.answer.Close)
			}
			got := c.frame(t) + c.frame(t)
			publishN(t, h, 2, "b")
			publish(t, h, "4", "elsewhere")
			got += c.frame(t) + c.frame(t)
			kick(t, h, sse.Selection{}) // chooses nobody that has no identity
			h.Drain(t.Context(), 0)
			got += string(c.rest(t))
			checkWords(t, "the stream", summary(t, []byte(got)), words([]string{"hub:open@1 complete"}, seqs(2, 4), []string{`hub:close {"reason":"drain"}`}))
			end := s.end(t)
			if end.Reason != sse.CloseDrain || end.Events != 3 || end.Bytes != uint64(len(got)) || end.Err != nil {
				t.Errorf("it ended %+v, want drain with 3 events and %d bytes", end, len(got))
			}
			if len(s.refused) > 0 {
				t.Error("the direct engine did not take it")
			}
		})
	}
}

// TestDirectHangUp promises that a client that leaves is noticed although nothing is
// written to it, and leaves nothing behind.
func TestDirectHangUp(t *testing.T) {
	for _, wire := range directWires {
		t.Run(wire, func(t *testing.T) {
			h := newHub(t, sse.Options{})
			s := startDirect(t, wire, h, quiet)
			stays := s.open(t, "channel=a")
			for range 3 {
				s.open(t, "channel=a").Close()
				if end := s.end(t); end.Reason != sse.CloseClient || end.Err != nil {
					t.Errorf("it ended %+v", end)
				}
			}
			if got := h.Stats(); got.Streams != 1 || got.Closed[sse.CloseClient] != 3 {
				t.Errorf("%d streams are open and %d ended, want 1 and 3", got.Streams, got.Closed[sse.CloseClient])
			}
			stays.frame(t)
			publishN(t, h, 1, "a")
			checkWords(t, "who stayed", summary(t, []byte(stays.frame(t))), seqs(1, 1))
		})
	}
}

// TestDirectBites reads streams in random bites, with random pauses for whoever
// is written to meanwhile, and small buffers of the kernel, so that writes end
// anywhere. Each stream must be whole and in order.
func TestDirectBites(t *testing.T) {
	for _, wire := range directWires {
		t.Run(wire, func(t *testing.T) { directBites(t, wire, rand.Uint64()) })
	}
}

func FuzzDirectBites(f *testing.F) {
	f.Add(uint8(0), uint64(1))
	f.Add(uint8(1), uint64(2))
	f.Fuzz(func(t *testing.T, wire uint8, seed uint64) {
		directBites(t, directWires[int(wire)%len(directWires)], seed)
	})
}

func directBites(t *testing.T, wire string, seed uint64) {
	t.Logf("seed %d", seed)
	const events, readers = 400, 3
	h := newHub(t, sse.Options{HistoryCount: 2 * events})
	s := startDirect(t, wire, h, sse.StreamOptions{Keepalive: 8 * time.Millisecond})
	s.sendBuffer = 4 << 10
	var reading sync.WaitGroup
	for i := range readers {
		c := s.open(t, "channel=a&channel=b-*")
		reading.Go(func() {
			if err := c.bite(rand.New(rand.NewPCG(seed, uint64(i))), events); err != nil {
				t.Errorf("reader %d: %v", i, err)
			}
		})
	}
	r := rand.New(rand.NewPCG(seed, 99))
	for i := range events {
		data := strconv.Itoa(i) + " " + strings.Repeat("x", r.IntN(1<<r.IntN(17)))
		publish(t, h, data, []string{"a", "b-1", "b-2"}[r.IntN(3)])
		if r.IntN(100) == 0 {
			publishN(t, h, 1, "elsewhere")
		}
	}
	reading.Wait()
}

// bite reads a stream until it has had so many events.
func (c *directClient) bite(r *rand.Rand, events int) error {
	if err := c.SetReadDeadline(time.Now().Add(directPatience)); err != nil {
		return err
	}
	var pending []byte
	var last sse.Position
	bite := make([]byte, 1<<16)
	for next := 0; next < events; {
		n, err := c.body.Read(bite[:1+r.IntN(1<<r.IntN(17))])
		if err != nil {
			return fmt.Errorf("after %d events: %w", next, err)
		}
		found, rest, err := splitBlocks(append(pending, bite[:n]...))
		if err != nil {
			return err
		}
		pending = slices.Clone(rest)
		for _, b := range found {
			switch {
			case b.id.Seq > 0 && b.id.Seq < last.Seq:
				return fmt.Errorf("position %s comes behind %s", b.id, last)
			case b.is("message"):
				if number, _, _ := strings.Cut(b.msg.Data, " "); number != strconv.Itoa(next) {
					return fmt.Errorf("event %.20q comes where %d was due", b.msg.Data, next)
				}
				next++
			}
			if b.id.Seq > 0 {
				last = b.id
			}
		}
	}
	return nil
}

// TestDirectFull promises that a client that reads nothing holds up nobody, and
// that it is gone soon once it is told to end.
func TestDirectFull(t *testing.T) {
	for _, wire := range directWires {
		t.Run(wire, func(t *testing.T) {
			h := newHub(t, sse.Options{})
			s := startDirect(t, wire, h, quiet)
			s.options.Connection = "deaf"
			s.open(t, "channel=a")
			s.options.Connection = ""
			c := s.open(t, "channel=a")
			c.frame(t)
			for range 300 {
				at := publish(t, h, strings.Repeat("x", 64<<10), "a")
				if frame := c.frame(t); !strings.HasPrefix(frame, "id: "+at.String()) {
					t.Fatalf("got %.40q, want %s", frame, at)
				}
			}
			kick(t, h, sse.Selection{Connection: "deaf"})
			if end := s.end(t); end.Reason != sse.CloseKicked || end.Events >= 300 {
				t.Errorf("it ended %+v, want kicked and fewer events than there were", end)
			}
		})
	}
}

// TestDirectKeepalive promises comments in the silence, which stop no event, and
// that another tuning is taken on.
func TestDirectKeepalive(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := startDirect(t, "tcp", h, sse.StreamOptions{Keepalive: -1})
	c := s.open(t, "channel=a")
	c.frame(t)
	publishN(t, h, 1, "elsewhere")
	s.tuning.Set(sse.StreamOptions{Keepalive: 10 * time.Millisecond})
	checkWords(t, "in the silence", summary(t, []byte(c.frame(t)+c.frame(t))), []string{"keepalive@1", "keepalive@0"})
	s.tuning.Set(sse.StreamOptions{Keepalive: -1, MaxAge: time.Millisecond})
	all := summary(t, c.rest(t))
	if got := all[len(all)-1]; got != `hub:close {"reason":"expired"}` {
		t.Errorf("it ends with %s", got)
	}
}

// TestDirectNotTaken promises that what the engine cannot write to is left as it
// was: a connection that is wrapped, and a response that cannot be hijacked.
func TestDirectNotTaken(t *testing.T) {
	h := newHub(t, sse.Options{})
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	s := subscribe(t, h, sse.Latest(), "a")
	never := ownerFunc(func(sse.End) { t.Error("it ended") })
	server := startDirect(t, "tcp", h, quiet)
	conn := server.connect(t)
	if s.Direct(&recorder{}, conn, sse.NewTuning(quiet), never) {
		t.Error("a response that cannot be hijacked was taken")
	}
	if s.Direct(hijackable{}, here, sse.NewTuning(quiet), never) {
		t.Error("a connection without a socket was taken")
	}
	w := hijackable{new(recorder)}
	if s.Direct(w, conn, sse.NewTuning(quiet), never) {
		t.Error("a response was taken that would not be hijacked")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Stream(ctx, w, sse.NewTuning(quiet))
	checkWords(t, "the stream that goes on", summary(t, w.bytes()), []string{"hub:open@0 fresh"})
}

type hijackable struct{ *recorder }

func (hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.ErrUnsupported
}

// TestDirectClose promises that Close of a hub ends all streams, those too that do
// not read, and has told of each when it returns.
func TestDirectClose(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := startDirect(t, "tcp", h, quiet)
	for range 20 {
		s.open(t, "channel=a")
	}
	for range 300 {
		publish(t, h, strings.Repeat("x", 64<<10), "a")
	}
	h.Close()
	if len(s.ends) != 20 || h.Stats().Streams != 0 {
		t.Errorf("%d of 20 streams have ended, %d are open", len(s.ends), h.Stats().Streams)
	}
}

// TestDirectFair promises that one stream that was woken does not queue behind the
// thousands of another channel's.
func TestDirectFair(t *testing.T) {
	turn, served := sse.ServedBeforeOne(10_000)
	if served > turn {
		t.Errorf("%d streams of a crowd were served before one of another channel; a turn has %d", served, turn)
	}
}

// TestDirectSlow promises that a stream ends whose client reads nothing and lags
// behind too far, if that was asked for, and is skipped ahead otherwise.
func TestDirectSlow(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := startDirect(t, "tcp", h, sse.StreamOptions{Keepalive: 10 * time.Millisecond, Lag: 1 << 20, Slow: sse.SlowDisconnect})
	s.sendBuffer = 4 << 10
	s.open(t, "channel=a")
	for range 300 {
		publish(t, h, strings.Repeat("x", 64<<10), "a")
	}
	if end := s.end(t); end.Reason != sse.CloseSlow {
		t.Errorf("it ended %+v, want slow", end)
	}
	s.tuning.Set(sse.StreamOptions{Keepalive: -1, Lag: 1 << 20})
	c := s.open(t, "channel=a")
	c.frame(t)
	for range 300 {
		publish(t, h, strings.Repeat("x", 64<<10), "a")
	}
	publishN(t, h, 1, "a")
	resets := 0
	for frame := ""; !strings.HasPrefix(frame, "id: "+at(h, 601).String()); {
		if frame = c.frame(t); strings.Contains(frame, `"reason":"limit"`) {
			resets++
		}
	}
	if resets == 0 {
		t.Error("it was not told that it was skipped ahead")
	}
}

// TestDirectLowerAge promises that streams that are too old by a new setting do not
// end as one crowd, and that all do soon.
func TestDirectLowerAge(t *testing.T) {
	ends := sse.EndAt(1000, 100*time.Second)
	if len(ends) > 10 || slices.Max(ends) > 1000/5 {
		t.Errorf("in each second %v end, want all within a tenth of the age, and no crowd", ends)
	}
}

// TestDirectLate promises that a stream ends that comes to a hub that was closed a
// moment ago.
func TestDirectLate(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := subscribe(t, h, sse.Latest(), "a")
	var got sse.End
	if err := h.LateJoin(s, ownerFunc(func(end sse.End) { got = end })); err != nil {
		t.Fatal(err)
	}
	if got.Reason != sse.CloseDrain || h.Stats().Streams != 0 {
		t.Errorf("it ended %+v, and %d streams are open", got, h.Stats().Streams)
	}
}
