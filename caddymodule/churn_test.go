package caddymodule_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var churnSeed = flag.Uint64("churn-seed", 0, "seed of TestChurn; zero is a new one")

const (
	churnStay       = 200  // subscribers from the first event to the last
	churnCome       = 1800 // subscribers that come and go
	churnChannels   = 100
	churnPublishers = 4
	churnBatches    = 125 // of each publisher
	churnBatch      = 10  // events
	churnPause      = 40 * time.Millisecond
)

// A churned is an event as it was published or received.
type churned struct {
	id, channel, data string
}

// A churner is one subscriber.
type churner struct {
	url      string
	client   *http.Client
	channels []string
	since    int    // how many batches were published before it came
	start    string // where it begins
	lastID   string // what it received last
	random   *rand.Rand
	stays    bool
	got      []churned
}

// TestChurn holds promises 1 and 2, and the bounds of promise 3, in a crowd:
// 2,000 subscribers, most of which break off and come back at random, while
// 1,000 events a second are published. Nobody loses or doubles an event, and
// when all have left nothing of them remains.
func TestChurn(t *testing.T) {
	seed := *churnSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-churn-seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	site := newHubSite(t)
	route := "sse /events* {\n allow churn-*\n }"
	site.load(t, site.caddyfile("", route))
	first := site.publish(t, "churn-0", "", "first")
	heap, goroutines := heapInUse(), runtime.NumGoroutine()

	churn := newChurn(t, site, random, first)
	churn.run()
	churn.check(t)
	connections := churn.connections.Load()
	churn.close()

	site.awaitStreams(t, 0)
	await(t, func() bool { return runtime.NumGoroutine() <= goroutines+10 }, func() string {
		stacks := make([]byte, 1<<20)
		return fmt.Sprintf("%d goroutines, of %d before\n%s", runtime.NumGoroutine(), goroutines, stacks[:runtime.Stack(stacks, true)])
	})
	churn = nil //nolint:wastedassign // so that the heap is measured without what it holds
	site.load(t, site.caddyfile("sse {\n history 1 1h\n }", route))
	limit := heap + heap/4 + 8<<20
	var after uint64
	await(t, func() bool {
		after = heapInUse()
		return after <= limit
	}, func() string {
		return fmt.Sprintf("the heap has %d KiB, want at most %d: before it had %d", after>>10, limit>>10, heap>>10)
	})
	t.Logf("%d connections; heap %d KiB before, %d KiB after", connections, heap>>10, after>>10)
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC() // what had a finalizer
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

type churn struct {
	t           *testing.T
	site        hubSite
	ctx         context.Context
	cancel      context.CancelFunc
	clients     []*http.Client
	subscribers []*churner
	connections atomic.Int64

	mu        sync.Mutex // guards what follows
	batches   int
	published []churned
	newest    string
}

func newChurn(t *testing.T, site hubSite, random *rand.Rand, first string) *churn {
	t.Helper()
	c := &churn{t: t, site: site, newest: first}
	c.ctx, c.cancel = context.WithTimeout(t.Context(), 20*patience) // only a hang takes that long
	// A quarter share a connection with others.
	shared := wires[3].client(t)
	own := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	c.clients = []*http.Client{shared, own}
	for i := range churnStay + churnCome {
		s := &churner{
			client: own,
			random: rand.New(rand.NewPCG(random.Uint64(), 0)),
			stays:  i < churnStay,
		}
		if i%4 == 0 {
			s.client = shared
		}
		if s.stays {
			s.start = first
		} else {
			s.since = random.IntN(churnPublishers * churnBatches)
		}
		s.channels = []string{fmt.Sprintf("churn-%d", i%churnChannels)}
		switch i % 8 {
		case 0, 1:
			s.channels = append(s.channels, fmt.Sprintf("churn-%d", random.IntN(churnChannels)))
		case 2:
			if i%5 == 0 {
				s.channels = append(s.channels, fmt.Sprintf("churn-%d*", 1+random.IntN(9)))
			}
		}
		s.url = site.url(wires[0], "/events?channel="+strings.Join(s.channels, "&channel="))
		c.subscribers = append(c.subscribers, s)
	}
	return c
}

// run returns when every subscriber has seen the last event.
func (c *churn) run() {
	var listening, publishing sync.WaitGroup
	arrived := make(chan struct{}, churnStay)
	for _, s := range c.subscribers[:churnStay] {
		listening.Go(func() { c.listen(s, func() { arrived <- struct{}{} }) })
	}
	for range churnStay {
		select {
		case <-arrived:
		case <-c.ctx.Done():
			c.t.Error("those who stay did not all arrive")
		}
	}
	for p := range churnPublishers {
		publishing.Go(func() { c.publish(p, &listening) })
	}
	publishing.Wait()
	c.end()
	listening.Wait()
}

// publish publishes a share of the events, and lets those subscribers come
// whose time it is.
func (c *churn) publish(publisher int, listening *sync.WaitGroup) {
	pace := time.NewTicker(churnPause)
	defer pace.Stop()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for batch := range churnBatches {
		<-pace.C
		var events []churned
		for i := range churnBatch {
			n := (batch*churnBatch + i) * churnPublishers
			channel := fmt.Sprintf("churn-%d", (n+publisher)%churnChannels)
			events = append(events, churned{channel: channel, data: fmt.Sprintf("%s %d", channel, n+publisher)})
		}
		if err := c.post(client, events); err != nil {
			c.t.Errorf("publish: %s", err)
		}
		for _, s := range c.come() {
			listening.Go(func() { c.listen(s, func() {}) })
		}
	}
}

// post publishes events as one array.
func (c *churn) post(client *http.Client, events []churned) error {
	var envelopes []map[string]string
	for _, e := range events {
		envelopes = append(envelopes, map[string]string{"channel": e.channel, "data": e.data})
	}
	body, err := json.Marshal(envelopes)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(c.ctx, http.MethodPost, c.site.apiURL("/publish"), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var receipts []struct{ ID string }
	if err := json.NewDecoder(resp.Body).Decode(&receipts); err != nil || resp.StatusCode != http.StatusOK || len(receipts) != len(events) {
		return fmt.Errorf("status %s, %d receipts (error: %w)", resp.Status, len(receipts), err)
	}
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range events {
		events[i].id = receipts[i].ID
	}
	c.published = append(c.published, events...)
	c.newest = receipts[len(receipts)-1].ID
	return nil
}

// come counts a batch and returns the subscribers that come after it.
func (c *churn) come() (coming []*churner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.subscribers[churnStay:] {
		if s.since == c.batches {
			s.start = c.newest
			coming = append(coming, s)
		}
	}
	c.batches++
	return coming
}

// end publishes the last event, to all channels at once.
func (c *churn) end() {
	var channels []string
	for i := range churnChannels {
		channels = append(channels, fmt.Sprintf("churn-%d", i))
	}
	body, err := json.Marshal(map[string]any{"channels": channels, "event": "end", "data": ""})
	if err != nil {
		c.t.Error(err)
	}
	if err := c.site.tryCall(c.ctx, http.MethodPost, "/publish", "application/json", string(body), nil); err != nil {
		c.t.Errorf("publish the end: %s", err)
	}
}

// listen reads until the last event, over as many connections as the
// subscriber likes.
func (c *churn) listen(s *churner, opened func()) {
	s.lastID = s.start
	for ended := false; !ended; {
		patience := 1 + s.random.IntN(40)
		if s.stays {
			patience = -1
		}
		var err error
		ended, err = c.connect(s, patience, opened)
		if err != nil {
			c.t.Errorf("subscriber of %v at %s: %s", s.channels, s.lastID, err)
			return
		}
	}
}

// connect reads so many events over one connection and breaks it off. It
// reports whether the last one there is was among them.
func (c *churn) connect(s *churner, events int, opened func()) (ended bool, err error) {
	c.connections.Add(1)
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("Last-Event-ID", s.lastID)
	resp, err := s.client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	var e churned
	var name string
	for events != 0 && lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case field == "id":
			e.id = value
		case field == "event":
			name = value
		case field == "data":
			e.data = value
		case field == "" && value == "": // the end of a frame
			switch name {
			case "hub:open":
				if !strings.Contains(e.data, `"resume":"complete"`) {
					return false, fmt.Errorf("the stream opens with %s, want resume complete", e.data)
				}
				opened()
			case "end":
				return true, nil
			case "":
				if e.data != "" {
					s.got = append(s.got, e)
					s.lastID = e.id
					events--
				}
			default:
				return false, fmt.Errorf("unexpected event %s %s", name, e.data)
			}
			e, name = churned{}, ""
		}
	}
	if events == 0 {
		return false, nil
	}
	if err := lines.Err(); err != nil {
		return false, err
	}
	return false, errors.New("the server ended the stream")
}

// check compares what everybody got with what was published.
func (c *churn) check(t *testing.T) {
	t.Helper()
	byPosition := func(a, b churned) int { return seqOf(a.id) - seqOf(b.id) }
	slices.SortFunc(c.published, byPosition)
	wrong, received := 0, 0
	for i, s := range c.subscribers {
		start := seqOf(s.start)
		var want []churned
		for _, e := range c.published {
			if seqOf(e.id) > start && slices.ContainsFunc(s.channels, func(asked string) bool {
				prefix, isPattern := strings.CutSuffix(asked, "*")
				return e.channel == asked || isPattern && strings.HasPrefix(e.channel, prefix)
			}) {
				want = append(want, churned{id: e.id, data: e.data})
			}
		}
		received += len(s.got)
		if !slices.Equal(s.got, want) && wrong < 5 {
			wrong++
			t.Errorf("subscriber %d of %v after %s got %d events, want %d: %s", i, s.channels, s.start, len(s.got), len(want), difference(s.got, want))
		}
	}
	t.Logf("%d events published, %d received", len(c.published), received)
}

func seqOf(id string) int {
	_, digits, _ := strings.Cut(id, ".")
	seq, err := strconv.Atoi(digits)
	if err != nil {
		panic(fmt.Sprintf("%q is not a position", id))
	}
	return seq
}

// difference tells where two sequences part.
func difference(got, want []churned) string {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Sprintf("%d is missing %+v", i, want[i])
		case i >= len(want):
			return fmt.Sprintf("%d is too much %+v", i, got[i])
		case got[i] != want[i]:
			return fmt.Sprintf("%d is %+v, want %+v", i, got[i], want[i])
		}
	}
	return "none"
}

func (c *churn) close() {
	c.cancel()
	for _, client := range c.clients {
		client.CloseIdleConnections()
	}
}
