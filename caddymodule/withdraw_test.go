package caddymodule_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

const (
	withdrawChannels   = 12
	withdrawPublishers = 4
	withdrawPublishes  = 400                    // of each publisher
	withdrawEach       = 16                     // subscribers of each kind
	withdrawLife       = 700 * time.Millisecond // of a token
)

// A withdrawing is one run of TestWithdrawUnderLoad.
type withdrawing struct {
	*lab
	history *ssetest.History
	seed    uint64
	client  *http.Client
	halfway chan struct{} // closed when half of the events are published
	over    chan struct{} // closed when everything was taken away
	refused *sync.Map     // connections that the app refuses
	token   string        // a header with one that expires
	expires time.Time
}

// A withdrawn subscriber loses a part of what it gets, or all, while events flow.
type withdrawn struct {
	*withdrawing
	noted    *ssetest.HistorySubscriber
	random   *rand.Rand
	kind     string
	token    string
	query    string
	id       string
	lastID   string
	gone     bool // it does not come back
	opened   chan struct{}
	lost     []string // what is taken away from it
	withdraw func(*withdrawn) error
}

// TestWithdrawUnderLoad holds promise 5: what is taken away from a stream, by a
// change of its channels, by the backend, by a kick or by the end of its token's
// time, brings no event that is published after that was answered; and what is
// left goes on without a gap, while events flow and streams break.
func TestWithdrawUnderLoad(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	// The app, which is asked for each stream, refuses those whom it has had kicked.
	var refused sync.Map
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		uri, _ := url.Parse(r.Header.Get("X-Forwarded-Uri"))
		if _, ok := refused.Load(uri.Query().Get("connection")); ok {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer app.Close()
	l := loadLab(t, "", "forward_auth /events* "+strings.TrimPrefix(app.URL, "http://")+" {\n\t\turi /\n\t}\n\tsse /events* {\n\t\tallow *\n\t\tsession 1m\n\t\t"+jwtOption("leeway off")+"\n\t}")
	run := &withdrawing{
		lab: l, history: ssetest.NewHistory(ssetest.HistoryOptions{KeepsAll: true}), seed: seed,
		client:  &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		halfway: make(chan struct{}),
		over:    make(chan struct{}),
		refused: &refused,
	}
	expires := time.Now().Add(withdrawLife)
	run.token = bearing(hs256(t, fmt.Sprintf(`{"exp":%.3f}`, float64(expires.UnixMilli())/1000)))
	run.expires = expires.Truncate(time.Millisecond)
	var subscribers []*withdrawn
	for i := range withdrawEach {
		for kind, withdraw := range map[string]func(*withdrawn) error{
			"client": (*withdrawn).unsubscribe, "backend": (*withdrawn).assign, "kick": (*withdrawn).kick, "token": (*withdrawn).expire,
		} {
			subscribers = append(subscribers, run.subscriber(fmt.Sprint(kind, " ", i), kind, withdraw))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var listening, publishing sync.WaitGroup
	for _, s := range subscribers {
		listening.Go(func() { s.listen(ctx) })
	}
	for _, s := range subscribers {
		<-s.opened
	}
	var done sync.WaitGroup
	for _, s := range subscribers {
		done.Go(func() {
			<-run.halfway
			if err := s.withdraw(s); err != nil {
				t.Errorf("%s: %s", s.id, err)
				return
			}
			s.noted.Withdrawn(s.lost...)
		})
	}
	for p := range withdrawPublishers {
		publishing.Go(func() { run.publishAll(ctx, p) })
	}
	done.Wait()
	close(run.over)
	publishing.Wait()
	run.finish(ctx)
	listening.Wait()
	report := run.history.Check()
	t.Logf("%s", report)
	if report.Sum() > 0 || report.Deliveries == 0 {
		t.Errorf("%v", report.Violations)
	}
}

func (run *withdrawing) subscriber(name, kind string, withdraw func(*withdrawn) error) *withdrawn {
	random := rand.New(rand.NewPCG(run.seed, uint64(crc32.ChecksumIEEE([]byte(name)))))
	s := &withdrawn{withdrawing: run, kind: kind, random: random, id: fmt.Sprintf("%022x", random.Uint64()), opened: make(chan struct{}), withdraw: withdraw}
	asked := []string{"end"}
	for _, i := range random.Perm(withdrawChannels)[:4] {
		asked = append(asked, fmt.Sprintf("w%02d", i))
	}
	s.lost = asked[1:3]
	if kind == "kick" || kind == "token" {
		s.lost = asked
	}
	if kind == "token" {
		s.token = run.token
	} else {
		s.token = ""
	}
	s.query = "/events?connection=" + s.id + "&channel=" + strings.Join(asked, "&channel=")
	s.noted = run.history.NewSubscriber(name, asked)
	return s
}

func (s *withdrawn) change(method, address, body string) error {
	req, err := http.NewRequestWithContext(s.t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	for {
		resp, err := s.client.Do(req)
		if err != nil {
			return err
		}
		answer, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusOK:
			return nil
		case http.StatusNotFound:
			if s.kind == "kick" {
				return nil // it is between two streams, and not let in any more
			}
			return fmt.Errorf("%s %s: %s", method, address, answer)
		case http.StatusTooManyRequests: // its stream is about to begin
			req.Body, _ = req.GetBody() // never fails for strings
		default:
			return fmt.Errorf("%s %s: %d %s", method, address, resp.StatusCode, answer)
		}
	}
}

func (s *withdrawn) unsubscribe() error {
	body, _ := json.Marshal(map[string]any{"unsubscribe": s.lost})
	return s.change("POST", s.site+"/events?connection="+s.id, string(body))
}

func (s *withdrawn) assign() error {
	body, _ := json.Marshal(map[string]any{"unsubscribe": s.lost})
	return s.change("POST", s.admin+"/sse/connections/"+s.id+"/channels", string(body))
}

func (s *withdrawn) kick() error {
	s.refused.Store(s.id, true)
	return s.change("DELETE", s.admin+"/sse/connections/"+s.id, "")
}

// expire waits until the token has expired.
func (s *withdrawn) expire() error {
	<-time.After(time.Until(s.expires))
	return nil
}

// publishAll publishes on channels at random, one after the other, until everything
// was taken away, and a while longer.
func (run *withdrawing) publishAll(ctx context.Context, publisher int) {
	random := rand.New(rand.NewPCG(run.seed, uint64(publisher)))
	left := withdrawPublishes
	for i := 0; left > 0 && ctx.Err() == nil; i++ {
		select {
		case <-run.over:
			left--
		default:
		}
		if publisher == 0 && i == withdrawPublishes/2 {
			close(run.halfway)
		}
		channels := []string{fmt.Sprintf("w%02d", random.IntN(withdrawChannels))}
		if other := fmt.Sprintf("w%02d", random.IntN(withdrawChannels)); other != channels[0] && i%5 == 0 {
			channels = append(channels, other)
		}
		run.publish(ctx, "", channels)
	}
}

func (run *withdrawing) publish(ctx context.Context, name string, channels []string) {
	p := run.history.NewPublication(sse.Event{Channels: channels, Name: name, Data: "x"})
	body, _ := json.Marshal(map[string]any{"channels": channels, "event": name, "data": p.Event.Data})
	p.Begin()
	req, err := http.NewRequestWithContext(ctx, "POST", run.admin+"/sse/publish", bytes.NewReader(body))
	if err != nil {
		run.t.Error(err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		run.t.Error(err)
		return
	}
	defer resp.Body.Close()
	var r receipt
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil || resp.StatusCode != 200 {
		run.t.Errorf("publish: %d %v", resp.StatusCode, err)
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
	p.Acknowledged(r.ID)
}

// finish publishes what ends every subscriber that is left.
func (run *withdrawing) finish(ctx context.Context) {
	run.publish(ctx, "end", []string{"end"})
}

// listen reads over one connection after the other, each broken off at random,
// until the last event or the kick.
func (s *withdrawn) listen(ctx context.Context) {
	for !s.gone && ctx.Err() == nil {
		if err := s.connect(ctx); err != nil {
			s.t.Errorf("%s: %s", s.id, err)
			return
		}
	}
}

func (s *withdrawn) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := s.noted.Connect(s.lastID)
	req, err := http.NewRequestWithContext(ctx, "GET", s.site+s.query, nil)
	if err != nil {
		return err
	}
	if s.lastID != "" {
		req.Header.Set("Last-Event-ID", s.lastID)
	}
	if s.token != "" {
		req.Header.Set("Authorization", strings.TrimPrefix(s.token, "Authorization: "))
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if s.gone = (s.kind == "token" && resp.StatusCode == 401) || (s.kind == "kick" && resp.StatusCode == 403); s.gone {
		return nil
	}
	if resp.StatusCode != 200 {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	decoder := sse.NewDecoder(resp.Body)
	for left := 5 + s.random.IntN(40); left > 0; left-- {
		m, err := decoder.Decode()
		if id := decoder.LastEventID(); id != s.lastID && m.Event == "" {
			c.Cursor(id)
		}
		s.lastID = decoder.LastEventID()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		c.Message(m)
		switch {
		case m.Event == "hub:open":
			select {
			case <-s.opened:
			default:
				close(s.opened)
			}
		case m.Event == "hub:close" && strings.Contains(m.Data, "kicked"), m.Event == "hub:close" && strings.Contains(m.Data, "expired"), m.Event == "end":
			s.gone = true
			return nil
		}
	}
	return nil
}
