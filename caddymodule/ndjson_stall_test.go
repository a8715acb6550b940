package caddymodule_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/caddymodule"
	"github.com/caddy-sse/caddy-sse/sse"
)

// A stubBroker has a test in the way of those who publish.
type stubBroker struct {
	*sse.MemoryBroker
	publish func(ctx context.Context, events []sse.Event) error

	mu    sync.Mutex // guards calls
	calls []int      // how many events each publish had
}

func (b *stubBroker) Publish(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
	b.mu.Lock()
	b.calls = append(b.calls, len(events))
	b.mu.Unlock()
	if b.publish != nil {
		if err := b.publish(ctx, events); err != nil {
			return nil, err
		}
	}
	return b.MemoryBroker.Publish(ctx, events)
}

// A stall is an API without Caddy and without a network, in a bubble of
// synctest, where time passes when everybody waits.
type stall struct {
	hub      *sse.Hub
	broker   *stubBroker
	end      func() // tells that the server wants to stop
	listener pipeListener
	client   *http.Client
}

func newStall(t *testing.T) *stall {
	t.Helper()
	return newStallOver(t, (*http.Protocols).SetHTTP1)
}

// newStallOver lets only one version of HTTP in.
func newStallOver(t *testing.T, set func(*http.Protocols, bool)) *stall {
	t.Helper()
	protocols := new(http.Protocols)
	set(protocols, true)
	s := &stall{
		broker:   &stubBroker{MemoryBroker: sse.NewMemoryBroker()},
		listener: pipeListener{make(chan net.Conn), make(chan struct{})},
	}
	var err error
	if s.hub, err = sse.NewHub(t.Context(), s.broker, sse.Options{}); err != nil {
		t.Fatal(err)
	}
	ending := make(chan struct{})
	s.end = sync.OnceFunc(func() { close(ending) })
	server := &http.Server{
		Handler:     caddymodule.Handler(s.hub, 1<<20, ending),
		ReadTimeout: 10 * time.Second, // as Caddy's admin endpoint has
		Protocols:   protocols,
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(s.listener) })
	transport := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return s.dial() },
		Protocols:   protocols,
	}
	s.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil { // it waits for the handlers
			t.Errorf("a request does not end: %s", err)
			_ = server.Close()
		}
		serving.Wait()
		s.hub.Close()
		_ = s.broker.Close() // it never fails
	})
	return s
}

func (s *stall) dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case s.listener.conns <- server:
		return client, nil
	case <-s.listener.done:
		return nil, net.ErrClosed
	}
}

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l pipeListener) Close() error {
	close(l.done)
	return nil
}

func (l pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (s *stall) open(t *testing.T) *linePublisher {
	t.Helper()
	return openLines(t, s.client, "http://localhost/publish")
}

// flood sends lines on a connection of its own without reading the answers
// until it is cut off. It returns how long that took, from when nothing went on.
func (s *stall) flood(t *testing.T, stuck func()) time.Duration {
	t.Helper()
	conn, err := s.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var failed error
	var sending sync.WaitGroup
	sending.Go(func() {
		_, failed = io.WriteString(conn, "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000000000\r\n\r\n")
		for line := envelope("a", "x"); failed == nil; {
			_, failed = io.WriteString(conn, line)
		}
	})
	head := make([]byte, 1)
	if _, err := conn.Read(head); err != nil { // the rest of the header is not read
		t.Fatal(err)
	}
	synctest.Wait()
	start := time.Now()
	stuck()
	sending.Wait()
	if !errors.Is(failed, io.ErrClosedPipe) {
		t.Errorf("the publisher was cut off with: %v", failed)
	}
	return time.Since(start)
}

// TestStallQuiet promises that the time that a server gives to a request does
// not end one whose publisher is quiet for an hour, nor does the time that
// passes between answers.
func TestStallQuiet(t *testing.T) {
	for name, set := range map[string]func(*http.Protocols, bool){
		"http1": (*http.Protocols).SetHTTP1,
		"http2": (*http.Protocols).SetUnencryptedHTTP2,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStallOver(t, set)
				p := s.open(t)
				time.Sleep(time.Hour)
				p.receipt(envelope("a", 1))
				time.Sleep(time.Hour)
				p.receipt(envelope("a", 2))
				if err := p.send("half"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				if err := p.send("\n"); err != nil {
					t.Fatal(err)
				}
				if r, err := p.next(); err != nil || r.Status != 400 || r.Line != 3 {
					t.Errorf("got %+v (%v)", r, err)
				}
				p.end()
			})
		})
	}
}

// TestStallLinger promises that a connection is not closed at once when the
// answer ends before the body does: what the publisher still sends would reset
// it, and could take the last answers away.
func TestStallLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStall(t)
		conn, err := s.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		from := bufio.NewReader(conn)
		resp, err := http.ReadResponse(from, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.end()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Error(err)
		}
		resp.Body.Close()
		ended := time.Now()
		if _, err := from.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want the connection to be closed", err)
		}
		if time.Since(ended) == 0 {
			t.Error("the connection was closed at once")
		}
	})
}

// TestStallUnread promises that a publisher who never reads the answers is cut
// off in bounded time.
func TestStallUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStall(t)
		if took := s.flood(t, func() {}); took > time.Minute {
			t.Errorf("it took %s", took)
		}
	})
}

// TestStallUnreadEnding promises that such a publisher does not hold up a
// server that wants to stop for as long as that.
func TestStallUnreadEnding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStall(t)
		if took := s.flood(t, s.end); took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// TestStallBrokerEnding promises that a broker that takes too long does not
// hold up a server that wants to stop either: the answer breaks off.
func TestStallBrokerEnding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStall(t)
		s.broker.publish = func(ctx context.Context, _ []sse.Event) error {
			<-ctx.Done()
			return ctx.Err()
		}
		p := s.open(t)
		if err := p.send(envelope("a", 1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		s.end()
		if r, err := p.next(); err == nil {
			t.Errorf("got %+v for an event that was not published", r)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// TestStallEnding promises that what was read is published and answered when
// the server wants to stop, but not half a line, and that lines which wait for
// a slow broker are published together.
func TestStallEnding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStall(t)
		release := make(chan struct{})
		s.broker.publish = func(context.Context, []sse.Event) error {
			<-release
			return nil
		}
		p := s.open(t)
		const lines = 200 // no more than are read ahead
		for i := range lines {
			if err := p.send(envelope("a", i)); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				synctest.Wait() // it is published alone
			}
		}
		if err := p.send(strings.TrimSpace(envelope("a", "no"))); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.end()
		synctest.Wait()
		close(release)
		for i := range lines {
			if r, err := p.next(); err != nil || r.ID.Seq != uint64(i+1) {
				t.Fatalf("line %d: got %+v (%v)", i+1, r, err)
			}
		}
		p.expectEnd()
		s.broker.mu.Lock()
		defer s.broker.mu.Unlock()
		if n := len(s.broker.calls); n != 2 {
			t.Errorf("%d lines were published by %v", lines, s.broker.calls)
		}
		if state, err := s.broker.State(t.Context()); err != nil || state.Newest.Seq != lines {
			t.Errorf("%d events were published (%v), want %d", state.Newest.Seq, err, lines)
		}
	})
}

// TestStallUnavailable promises that a line which the broker cannot take is
// told so, that none behind it is published, so that the order holds, and that
// repeating from there by id continues as if nothing had happened.
func TestStallUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStall(t)
		hold := make(chan struct{})
		full := errors.New("no space left on device")
		calls := 0
		s.broker.publish = func(context.Context, []sse.Event) error {
			switch calls++; calls {
			case 2:
				<-hold // until all lines have come
				return fmt.Errorf("%w: %w", sse.ErrUnavailable, full)
			}
			return nil
		}
		p := s.open(t)
		p.receipt(withID("a", 0))
		text := withID("a", 1)
		if err := p.send(text); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := p.send("oops\n" + withID("a", 2) + withID("a", 3)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		close(hold)
		r, err := p.next()
		if err != nil || r.Status != 503 || r.Line != 2 || !strings.Contains(r.Detail, full.Error()) || !strings.Contains(r.Detail, "nothing was published") {
			t.Errorf("got %+v (%v), want status 503 with the reason", r, err)
		}
		p.expectEnd()

		again := s.open(t)
		for i := 1; i < 5; i++ {
			if r := again.receipt(withID("a", i)); r.ID.Seq != uint64(i+1) {
				t.Errorf("event %d got position %s", i, r.ID)
			}
		}
		again.end()
	})
}

// TestStallUnavailableBatch promises each of several lines that were to be
// published together its own answer when the broker cannot take them: those
// before an end that were published, theirs.
func TestStallUnavailableBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStall(t)
		hold := make(chan struct{})
		calls := 0
		s.broker.publish = func(context.Context, []sse.Event) error {
			switch calls++; calls {
			case 1:
				<-hold
			case 4: // after one attempt for all, and one for those before the end
				return sse.ErrUnavailable
			}
			return nil
		}
		p := s.open(t)
		if err := p.send(envelope("a", 1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := p.send(envelope("a", 2) + `{"channel":"b","end":true}` + "\noops\n" + envelope("b", "late") + envelope("a", "no")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		close(hold)
		for line, status := range []int{0, 0, 0, 400, 503, 503} {
			if r, err := p.next(); err != nil || r.Status != status || (status != 0 && r.Line != line+1) {
				t.Errorf("line %d: got %+v (%v), want status %d", line+1, r, err, status)
			}
		}
		p.expectEnd()
	})
}

// TestStallClosed promises a publisher whose hub is closed that it is told and
// let go.
func TestStallClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStall(t)
		p := s.open(t)
		p.receipt(envelope("a", 1))
		s.hub.Close()
		if err := p.send(envelope("a", 2)); err != nil {
			t.Fatal(err)
		}
		if r, err := p.next(); err != nil || r.Status != 503 {
			t.Errorf("got %+v (%v), want status 503", r, err)
		}
		p.expectEnd()
	})
}

// TestStallAsIfOneByOne promises that lines which are published together are
// answered as if each had been published alone, whatever ends and repeats are
// among them.
func TestStallAsIfOneByOne(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 0))
				var lines []string
				for range 150 {
					lines = append(lines, randomLine(random))
				}
				together := newStall(t).post(t, strings.Join(lines, ""))
				alone := newStall(t)
				for i, line := range lines {
					one := alone.post(t, line)
					if len(one) != 1 || len(together) != len(lines) {
						t.Fatalf("%d lines got %d answers, and line %d %d", len(lines), len(together), i+1, len(one))
					}
					got, want := together[i], one[0]
					if got.Status != want.Status || got.ID.Seq != want.ID.Seq || got.Field != want.Field {
						t.Errorf("line %d, %q: got %+v, want %+v", i+1, line, got, want)
					}
					if at := fmt.Sprintf(".%d ", atOf(want.Detail)); want.Status == 409 && !strings.Contains(got.Detail, at) {
						t.Errorf("line %d: got %q, want %q", i+1, got.Detail, want.Detail)
					}
				}
			})
		})
	}
}

// atOf returns the seq in what is told of a channel that has ended.
func atOf(detail string) (seq int) {
	_, rest, _ := strings.Cut(detail, "ended at ")
	_, rest, _ = strings.Cut(rest, ".")
	_, _ = fmt.Sscan(rest, &seq) // zero is in no detail
	return seq
}

func randomLine(random *rand.Rand) string {
	if random.IntN(20) == 0 {
		return "oops\n"
	}
	channel := func() string { return fmt.Sprint("c", random.IntN(12)) }
	fields := []string{fmt.Sprintf(`"channel":%q`, channel())}
	if a, b := channel(), channel(); random.IntN(5) == 0 && a != b {
		fields[0] = fmt.Sprintf(`"channels":[%q,%q]`, a, b)
	}
	if random.IntN(4) == 0 {
		fields = append(fields, fmt.Sprintf(`"id":"%d"`, random.IntN(10)))
	}
	if random.IntN(10) == 0 {
		fields = append(fields, `"end":true`)
	}
	return "{" + strings.Join(fields, ",") + "}\n"
}

// post publishes lines in one request and returns the answers.
func (s *stall) post(t *testing.T, lines string) (answers []lineReply) {
	t.Helper()
	p := s.open(t)
	if err := p.send(lines); err != nil {
		t.Fatal(err)
	}
	p.body.Close()
	for {
		r, err := p.next()
		if err != nil {
			return answers
		}
		answers = append(answers, r)
	}
}

// TestPublishUnavailable promises status 503 with the broker's reason and
// Retry-After to who publishes when the broker cannot take it.
func TestPublishUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStall(t)
		full := errors.New("no space left on device")
		s.broker.publish = func(context.Context, []sse.Event) error { return fmt.Errorf("%w: %w", sse.ErrUnavailable, full) }
		for _, method := range []string{http.MethodPost, http.MethodDelete} {
			path := map[string]string{http.MethodPost: "/publish/a", http.MethodDelete: "/channels/a"}[method]
			req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := s.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			reply{resp, string(body)}.problem(t, 503, full.Error(), "nothing was published")
			if resp.Header.Get("Retry-After") == "" {
				t.Errorf("%s: there is no Retry-After", method)
			}
		}
	})
}
