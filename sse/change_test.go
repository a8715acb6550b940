package sse_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// wire tells what frames say as summary does, but ids as they are, without the
// epoch.
func wire(t testing.TB, stream []byte) []string {
	t.Helper()
	var words []string
	for frame := range strings.SplitSeq(strings.TrimSuffix(string(stream), "\n\n"), "\n\n") {
		decoder := sse.NewDecoder(strings.NewReader(frame + "\n\n"))
		m, _ := decoder.Decode() // an error is a frame that fires nothing
		_, id, _ := strings.Cut(decoder.LastEventID(), ".")
		switch {
		case m.Event == "" && id == "":
		case m.Event == "":
			words = append(words, "@"+id)
		case m.Event == "message":
			words = append(words, id+"="+m.Data)
		default:
			words = append(words, m.Event+"@"+id+" "+m.Data)
		}
	}
	return words
}

// drain returns all that the engine would write now.
func drain(s *sse.Subscriber) (stream []byte) {
	for {
		frames, _, _ := s.Pull()
		if len(frames) == 0 {
			return stream
		}
		stream = append(stream, frames...)
	}
}

func changed(t testing.TB, h *sse.Hub, connection string, c sse.Change) []string {
	t.Helper()
	named, err := h.Change(t.Context(), connection, "", c)
	if err != nil {
		t.Fatalf("Change: %v", err)
	}
	return named
}

func connect(t testing.TB, h *sse.Hub, start sse.Start, channels ...string) *sse.Subscriber {
	t.Helper()
	return subscribeWith(t, h, sse.SubscribeOptions{Connection: "c", Session: time.Minute, Start: start, Channels: channels})
}

// reconnect comes back as a browser does: with the last id and the same request.
func reconnect(t testing.TB, h *sse.Hub, id string, channels ...string) *sse.Subscriber {
	t.Helper()
	start, err := sse.ParseStart(h.Stats().Position.Epoch + "." + id)
	if err != nil {
		t.Fatal(err)
	}
	return connect(t, h, start, channels...)
}

func TestChange(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := connect(t, h, sse.Latest(), "a", "b")
	publish(t, h, "a1", "a")
	publish(t, h, "b2", "b")
	publish(t, h, "c3", "c")
	if got, want := changed(t, h, "c", sse.Change{Subscribe: []string{"c", "c", "a"}, Unsubscribe: []string{"b"}}), []string{"a", "c"}; !slices.Equal(got, want) {
		t.Errorf("the connection has %q, want %q", got, want)
	}
	publish(t, h, "b4", "b")
	publish(t, h, "c5", "c")
	checkWords(t, "the stream", wire(t, drain(s)), []string{"1=a1", `hub:channels@3 {"channels":["a","c"]}`, "5=c5"})

	changed(t, h, "c", sse.Change{Unsubscribe: []string{"a", "c", "never"}})
	publish(t, h, "a6", "a")
	checkWords(t, "with nothing", wire(t, drain(s)), []string{`hub:channels@5 {"channels":[]}`})
	if _, _, closing := s.Pull(); closing != "" {
		t.Errorf("a stream without channels closes: %s", closing)
	}
	s.Leave()
	s = reconnect(t, h, "5", "a", "b")
	checkWords(t, "back with nothing", wire(t, append(s.OpenFrame(), drain(s)...)), []string{`hub:open@5 {"connection":"c","channels":[],"resume":"complete"}`})
	s.Leave()
}

// TestChangeOfPatterns holds that what a change leaves alone goes on where it is,
// by whatever name, and that what it takes away is gone even if it was published
// before.
func TestChangeOfPatterns(t *testing.T) {
	for _, tc := range []struct {
		name              string
		before            []string
		change            sse.Change
		want, wantChannel string
	}{
		{"a wider one", []string{"a1"}, sse.Change{Subscribe: []string{"a*"}}, "1=a1 hub:channels 4=a1 5=a2", `["a1","a*"]`},
		{"a narrower one", []string{"a*"}, sse.Change{Subscribe: []string{"a1"}, Unsubscribe: []string{"a*"}}, "1=a1 hub:channels 4=a1", `["a1"]`},
		{"another", []string{"a*"}, sse.Change{Subscribe: []string{"b"}, Unsubscribe: []string{"a*"}}, "hub:channels 6=b", `["b"]`},
		{"all", []string{"b"}, sse.Change{Subscribe: []string{"*"}}, "3=b hub:channels 4=a1 5=a2 6=b", `["b","*"]`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHub(t, sse.Options{})
			s := connect(t, h, sse.Latest(), tc.before...)
			publishOn := func(names ...string) {
				for _, name := range names {
					publish(t, h, name, name)
				}
			}
			publishOn("a1", "a2", "b")
			changed(t, h, "c", tc.change)
			publishOn("a1", "a2", "b")
			var got []string
			for _, word := range wire(t, drain(s)) {
				if name, data, found := strings.Cut(word, "@"); found {
					word = name
					if !strings.Contains(data, tc.wantChannel) {
						t.Errorf("told %s, want %s", data, tc.wantChannel)
					}
				}
				got = append(got, word)
			}
			want := strings.Fields(tc.want)
			if tc.before[0] == "a*" && tc.name == "another" {
				want = strings.Fields("hub:channels 6=b")
			}
			checkWords(t, "the stream", got, want)
			s.Leave()
		})
	}
}

// TestBackfill holds that channels which are added with a start in the past
// bring what was missed, with the events' own ids, and that a client which loses
// its stream at any frame gets the rest, and nothing twice.
func TestBackfill(t *testing.T) {
	h := newHub(t, sse.Options{})
	publish(t, h, "b1", "b")
	publish(t, h, "b2", "b")
	first := connect(t, h, sse.Latest(), "a")
	publish(t, h, "a3", "a")
	changed(t, h, "c", sse.Change{Subscribe: []string{"b"}, Start: sse.Earliest()})
	publish(t, h, "b4", "b")
	all := []string{"3=a3", `hub:channels@3-1-0 {"channels":["a","b"]}`, "1=b1", "@3-1-1", "2=b2", "@3-1-2", "@3-1-3", "4=b4"}
	checkWords(t, "the stream", wire(t, drain(first)), all)
	first.Leave()

	for _, tc := range []struct{ id, want string }{
		{"2", `hub:open@2-1-0 "complete" 1=b1 @2-1-1 @2-1-2 3=a3 4=b4`},
		{"3", `hub:open@3-1-0 "complete" 1=b1 @3-1-1 2=b2 @3-1-2 @3-1-3 4=b4`},
		{"3-1-0", `hub:open@3-1-0 "complete" 1=b1 @3-1-1 2=b2 @3-1-2 @3-1-3 4=b4`},
		{"3-1-1", `hub:open@3-1-1 "complete" 2=b2 @3-1-2 @3-1-3 4=b4`},
		{"3-1-2", `hub:open@3-1-2 "complete" @3-1-3 4=b4`},
		{"3-1-3", `hub:open@3 "complete" 4=b4`},
		{"4", `hub:open@4 "complete"`},
	} {
		t.Run(tc.id, func(t *testing.T) {
			h := newHub(t, sse.Options{})
			second := "b"
			if tc.id == "2" { // where it would be an event of the backfill, see below
				second = "x"
			}
			publish(t, h, "b1", "b")
			publish(t, h, "b2", second)
			s := connect(t, h, sse.Latest(), "a")
			publish(t, h, "a3", "a")
			changed(t, h, "c", sse.Change{Subscribe: []string{"b"}, Start: sse.Earliest()})
			publish(t, h, "b4", "b")
			s.Leave()
			s = reconnect(t, h, tc.id, "a")
			var got []string
			for _, word := range wire(t, append(s.OpenFrame(), drain(s)...)) {
				if strings.HasPrefix(word, "hub:open") {
					head, data, _ := strings.Cut(word, " ")
					word = head + " " + data[strings.LastIndex(data, ":")+1:len(data)-1]
				}
				got = append(got, word)
			}
			if joined := strings.Join(got, " "); joined != tc.want {
				t.Errorf("\n got %s\nwant %s", joined, tc.want)
			}
			s.Leave()
		})
	}

	t.Run("an id that may be either", func(t *testing.T) {
		// 2 is that of an event of the backfill; or the stream broke long
		// before it, at the keepalive behind an event for others.
		h := newHub(t, sse.Options{})
		publish(t, h, "b1", "b")
		publish(t, h, "b2", "b")
		s := connect(t, h, sse.Latest(), "a")
		publish(t, h, "a3", "a")
		changed(t, h, "c", sse.Change{Subscribe: []string{"b"}, Start: after(h, 1)})
		s.Leave()
		s = reconnect(t, h, "2", "a")
		checkWords(t, "the stream", wire(t, append(s.OpenFrame(), drain(s)...)), []string{
			`hub:open@3-1-3 {"connection":"c","channels":["a","b"],"resume":"reset","reset":[{"channel":"a","reason":"unknown"},{"channel":"b","reason":"unknown"}]}`,
		})
		s.Leave()
	})
}

func TestChangeIsRefused(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := subscribeWith(t, h, sse.SubscribeOptions{Connection: "c", User: "alice", Fixed: []string{"all"}, Channels: []string{"a*", "b"}})
	defer s.Leave()
	for _, tc := range []struct {
		name, connection, user string
		change                 sse.Change
		want                   error
	}{
		{"unknown", "d", "alice", sse.Change{Subscribe: []string{"x"}}, sse.ErrNoConnection},
		{"none", "", "", sse.Change{Subscribe: []string{"x"}}, sse.ErrNoConnection},
		{"another user's", "c", "bob", sse.Change{Subscribe: []string{"x"}}, sse.ErrNoConnection},
		{"nobody's", "c", "", sse.Change{Unsubscribe: []string{"b"}}, sse.ErrNoConnection},
		{"malformed", "c", "alice", sse.Change{Subscribe: []string{"x y"}}, sse.ErrChannel},
		{"malformed too", "c", "alice", sse.Change{Unsubscribe: []string{"*x"}}, sse.ErrChannel},
		{"fixed", "c", "alice", sse.Change{Unsubscribe: []string{"all"}}, sse.ErrChange},
		{"a part of a pattern", "c", "alice", sse.Change{Unsubscribe: []string{"a1"}}, sse.ErrChange},
		{"both", "c", "alice", sse.Change{Subscribe: []string{"x"}, Unsubscribe: []string{"x"}}, sse.ErrChange},
		{"too many", "c", "alice", sse.Change{Subscribe: []string{"x"}, MaxChannels: 3}, sse.ErrChange},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := h.Change(t.Context(), tc.connection, tc.user, tc.change); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	if got := s.Channels(); !slices.Equal(got, []string{"all", "a*", "b"}) {
		t.Errorf("refused changes left %q", got)
	}
	if frames := drain(s); len(frames) > 0 {
		t.Errorf("refused changes were told: %q", frames)
	}
	for i := 0; ; i++ {
		_, err := h.Change(t.Context(), "c", "alice", sse.Change{Subscribe: []string{fmt.Sprint("n", i)}})
		if err != nil {
			if !errors.Is(err, sse.ErrChanging) || i < 2 || i > 100 {
				t.Errorf("the change %d got %v", i, err)
			}
			break
		}
	}
	s.Discard()
	if _, err := h.Change(t.Context(), "c", "alice", sse.Change{Subscribe: []string{"again"}}); err != nil {
		t.Errorf("after the stream has gone on: %v", err)
	}
}

// TestAssign holds what those who run the hub can do beyond what a client can,
// and that the client cannot undo it.
func TestAssign(t *testing.T) {
	h := newHub(t, sse.Options{})
	may := func(name string) bool { return name == "a" || name == "b" }
	open := func() *sse.Subscriber {
		return subscribeWith(t, h, sse.SubscribeOptions{
			Connection: "c", Session: time.Minute, May: may,
			Fixed: []string{"all"}, Channels: []string{"a", "b"},
		})
	}
	s := open()
	named, err := h.Assign(t.Context(), "c", sse.Change{Subscribe: []string{"secret"}, Unsubscribe: []string{"all", "b"}})
	if want := []string{"a", "secret"}; err != nil || !slices.Equal(named, want) {
		t.Fatalf("got %q, %v", named, err)
	}
	for _, name := range []string{"b", "b*", "*", "all"} {
		if _, err := h.Change(t.Context(), "c", "", sse.Change{Subscribe: []string{name}}); !errors.Is(err, sse.ErrWithdrawn) {
			t.Errorf("asked again for %q: %v", name, err)
		}
	}
	s.Leave()
	s = open()
	if got, want := s.Channels(), []string{"a", "secret"}; !slices.Equal(got, want) {
		t.Errorf("came back with %q, want %q", got, want)
	}
	if _, err := h.Assign(t.Context(), "c", sse.Change{Subscribe: []string{"b"}, Unsubscribe: []string{"secret"}}); err != nil {
		t.Error(err)
	}
	s.Leave()

	// What was allowed before, and is not any more, does not come back.
	may = func(name string) bool { return false }
	s = open()
	if got, want := s.Channels(), []string{"b"}; !slices.Equal(got, want) {
		t.Errorf("came back with %q, want %q", got, want)
	}
	s.Leave()
}

func TestSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, sse.Options{})
		s := connect(t, h, sse.Latest(), "a")
		changed(t, h, "c", sse.Change{Subscribe: []string{"b"}})
		s.Leave()
		// While the client is gone, the session can be changed.
		changed(t, h, "c", sse.Change{Subscribe: []string{"d"}, Unsubscribe: []string{"a"}})
		time.Sleep(time.Minute - time.Second)
		s = connect(t, h, sse.Latest(), "a")
		if got, want := s.Channels(), []string{"b", "d"}; !slices.Equal(got, want) {
			t.Errorf("came back in time with %q, want %q", got, want)
		}
		s.Leave()
		time.Sleep(time.Minute + time.Second)
		if _, err := h.Change(t.Context(), "c", "", sse.Change{Subscribe: []string{"x"}}); !errors.Is(err, sse.ErrNoConnection) {
			t.Errorf("changed what is over: %v", err)
		}
		s = connect(t, h, sse.Latest(), "a")
		if got, want := s.Channels(), []string{"a"}; !slices.Equal(got, want) {
			t.Errorf("came back too late with %q, want %q", got, want)
		}
		s.Leave()
		// It can be changed for the first time while its client is gone.
		changed(t, h, "c", sse.Change{Subscribe: []string{"e"}})
		s = connect(t, h, sse.Latest(), "a")
		if got, want := s.Channels(), []string{"a", "e"}; !slices.Equal(got, want) {
			t.Errorf("came back with %q, want %q", got, want)
		}
		changed(t, h, "c", sse.Change{Subscribe: []string{"b"}})
		s.Leave()
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if n := h.Stats().Away; n != 0 {
			t.Errorf("%d sessions are kept after their time", n)
		}
	})
}

// TestSessionsAreBounded holds that clients which come, change something and go
// do not fill the memory.
func TestSessionsAreBounded(t *testing.T) {
	h := newHub(t, sse.Options{})
	for i := range sse.MaxAway + 3 {
		id := fmt.Sprint(i)
		s := subscribeWith(t, h, sse.SubscribeOptions{Connection: id, Session: time.Hour, Channels: []string{"a"}})
		changed(t, h, id, sse.Change{Subscribe: []string{"b"}})
		s.Leave()
	}
	if stats := h.Stats(); stats.Away != sse.MaxAway || stats.Forgotten != 3 {
		t.Errorf("%d sessions are kept and %d were forgotten", stats.Away, stats.Forgotten)
	}
	// Those that have nothing to remember do not push the others out.
	for i := range sse.MaxAway + 3 {
		subscribeWith(t, h, sse.SubscribeOptions{Connection: fmt.Sprint("n", i), Session: time.Hour, Channels: []string{"a"}}).Leave()
	}
	if stats := h.Stats(); stats.Away != sse.MaxAway || stats.Forgotten != 3 {
		t.Errorf("%d sessions are kept and %d were forgotten", stats.Away, stats.Forgotten)
	}
	if _, err := h.Change(t.Context(), "0", "", sse.Change{}); !errors.Is(err, sse.ErrNoConnection) {
		t.Errorf("the longest gone is still known: %v", err)
	}
}

// TestConnectionIsReplaced holds that a stream of the same connection takes the
// place of the one before, but only if it is the same user's.
func TestConnectionIsReplaced(t *testing.T) {
	h := newHub(t, sse.Options{})
	ask := sse.SubscribeOptions{Connection: "c", User: "alice", Session: time.Minute, Channels: []string{"a"}}
	first := subscribeWith(t, h, ask)
	if _, err := h.Change(t.Context(), "c", "alice", sse.Change{Subscribe: []string{"b"}}); err != nil {
		t.Fatal(err)
	}
	others := ask
	others.User = "mallory"
	if _, err := h.Subscribe(t.Context(), others); !errors.Is(err, sse.ErrConnection) {
		t.Errorf("another user took the connection: %v", err)
	}
	second := subscribeWith(t, h, ask)
	if _, _, closing := first.Pull(); closing != sse.CloseReplaced {
		t.Errorf("the first stream closes with %q", closing)
	}
	first.Leave()
	if got, want := second.Channels(), []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("the second stream has %q, want %q", got, want)
	}
	if _, err := h.Change(t.Context(), "c", "alice", sse.Change{Subscribe: []string{"d"}}); err != nil {
		t.Errorf("after the first has left: %v", err)
	}
	second.Leave()
	if _, err := h.Subscribe(t.Context(), others); !errors.Is(err, sse.ErrConnection) {
		t.Errorf("another user took the connection while its client is gone: %v", err)
	}

	// One that is nobody's belongs to whoever knows its id, as somebody does who
	// has logged in since; what it had is not theirs.
	ask.Connection, ask.User = "d", ""
	nobodys := subscribeWith(t, h, ask)
	changed(t, h, "d", sse.Change{Subscribe: []string{"b"}})
	others.Connection = "d"
	third := subscribeWith(t, h, others)
	if _, _, closing := nobodys.Pull(); closing != sse.CloseReplaced {
		t.Errorf("the stream closes with %q", closing)
	}
	if got, want := third.Channels(), []string{"a"}; !slices.Equal(got, want) {
		t.Errorf("another user has %q, want %q", got, want)
	}
	third.Leave()
	nobodys.Leave()
	if n := h.Stats().Away; n != 1 {
		t.Errorf("%d sessions are left", n)
	}
}

func TestKick(t *testing.T) {
	h := newHub(t, sse.Options{})
	streams := make(map[string]*sse.Subscriber)
	for _, c := range []struct{ connection, user, channel string }{
		{"1", "alice", "a"}, {"2", "alice", "b"}, {"3", "bob", "a*"}, {"4", "", "c"},
	} {
		streams[c.connection] = subscribeWith(t, h, sse.SubscribeOptions{Connection: c.connection, User: c.user, Session: time.Minute, Channels: []string{c.channel}})
	}
	list := func(sel sse.Selection) (found []string) {
		for _, info := range connections(t, h, sel, "", 10) {
			found = append(found, info.Connection)
		}
		return found
	}
	for _, tc := range []struct {
		sel  sse.Selection
		want string
	}{
		{sse.Selection{}, "1 2 3 4"},
		{sse.Selection{User: "alice"}, "1 2"},
		{sse.Selection{Channel: "a"}, "1 3"},
		{sse.Selection{Channel: "a2"}, "3"},
		{sse.Selection{Channel: "*"}, "1 2 3 4"},
		{sse.Selection{User: "alice", Channel: "a"}, "1"},
		{sse.Selection{User: "nobody"}, ""},
		{sse.Selection{Connection: "2"}, "2"},
		{sse.Selection{Connection: "2", User: "bob"}, ""},
	} {
		if got := strings.Join(list(tc.sel), " "); got != tc.want {
			t.Errorf("%+v chooses %q, want %q", tc.sel, got, tc.want)
		}
	}
	if got := connections(t, h, sse.Selection{}, "1", 2); len(got) != 2 || got[0].Connection != "2" || got[1].User != "bob" {
		t.Errorf("the second page is %+v", got)
	}

	// One who is gone for the moment is kicked too, and what it had changed is
	// forgotten.
	if _, err := h.Change(t.Context(), "2", "alice", sse.Change{Subscribe: []string{"more"}}); err != nil {
		t.Fatal(err)
	}
	streams["2"].Leave()
	publish(t, h, "before", "a")
	if n := kick(t, h, sse.Selection{User: "alice"}); n != 2 {
		t.Errorf("kicked %d", n)
	}
	publish(t, h, "after", "a")
	if frames, _, closing := streams["1"].Pull(); closing != sse.CloseKicked || len(frames) > 0 {
		t.Errorf("the kicked stream gets %q and closes with %q", frames, closing)
	}
	if _, err := h.Change(t.Context(), "1", "alice", sse.Change{Subscribe: []string{"x"}}); !errors.Is(err, sse.ErrNoConnection) {
		t.Errorf("a kicked connection was changed: %v", err)
	}
	back := subscribeWith(t, h, sse.SubscribeOptions{Connection: "2", User: "alice", Session: time.Minute, Channels: []string{"b"}})
	if got := back.Channels(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("the kicked client came back with %q", got)
	}
	for _, s := range append([]*sse.Subscriber{back}, streams["1"], streams["3"], streams["4"]) {
		s.Leave()
	}
	if got := list(sse.Selection{}); len(got) > 0 {
		t.Errorf("%q are left", got)
	}
}

// TestExpires holds that nothing is sent that is published after what allowed a
// stream has expired, even before the timer that closes it has run.
func TestExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, sse.Options{})
		s := subscribeWith(t, h, sse.SubscribeOptions{Channels: []string{"a"}, Expires: time.Now().Add(time.Minute)})
		publish(t, h, "before", "a")
		checkWords(t, "before", wire(t, drain(s)), []string{"1=before"})
		time.Sleep(time.Minute)
		publish(t, h, "after", "a")
		if frames, _, closing := s.Pull(); closing != sse.CloseExpired || len(frames) > 0 {
			t.Errorf("got %q, and it closes with %q", frames, closing)
		}
		s.Leave()

		// What was added for a shorter time ends the stream then.
		s = subscribeWith(t, h, sse.SubscribeOptions{Connection: "c", Channels: []string{"a"}, Expires: time.Now().Add(time.Hour)})
		if _, err := h.Change(t.Context(), "c", "", sse.Change{Subscribe: []string{"b"}, Expires: time.Now().Add(time.Minute)}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Change(t.Context(), "c", "", sse.Change{Subscribe: []string{"d"}, Expires: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		w := &recorder{}
		start := time.Now()
		end := s.Stream(context.Background(), w, sse.NewTuning(sse.StreamOptions{Keepalive: -1}))
		if end.Reason != sse.CloseExpired || time.Since(start) != time.Minute {
			t.Errorf("the stream ended with %q after %s", end.Reason, time.Since(start))
		}
	})
}

// TestFixedChannelsAreTheRequests holds that a session does not bring back what
// every client had when it began, but what every client has now.
func TestFixedChannelsAreTheRequests(t *testing.T) {
	h := newHub(t, sse.Options{})
	open := func(fixed string) *sse.Subscriber {
		return subscribeWith(t, h, sse.SubscribeOptions{Connection: "c", Session: time.Minute, Fixed: []string{fixed}, Channels: []string{"a"}})
	}
	s := open("role-admin")
	changed(t, h, "c", sse.Change{Subscribe: []string{"b"}})
	s.Leave()
	s = open("role-guest")
	if got, want := s.Channels(), []string{"role-guest", "a", "b"}; !slices.Equal(got, want) {
		t.Errorf("came back with %q, want %q", got, want)
	}
	s.Leave()
}

// TestWithdrawnWhileTheRecordIsRead holds that what is taken away while a stream
// that is behind reads the record is not sent, although it was read.
func TestWithdrawnWhileTheRecordIsRead(t *testing.T) {
	for _, tc := range []struct {
		name    string
		act     func(t *testing.T, h *sse.Hub)
		closing sse.CloseReason
		want    []string
	}{
		{"a channel", func(t *testing.T, h *sse.Hub) {
			changed(t, h, "c", sse.Change{Unsubscribe: []string{"a"}})
		}, "", []string{"2=b", `hub:channels@3 {"channels":["b"]}`}},
		{"a channel, and more is published", func(t *testing.T, h *sse.Hub) {
			changed(t, h, "c", sse.Change{Unsubscribe: []string{"a"}})
			publish(t, h, "late", "a")
		}, "", []string{"2=b", `hub:channels@3 {"channels":["b"]}`}},
		{"everything", func(t *testing.T, h *sse.Hub) {
			kick(t, h, sse.Selection{Connection: "c"})
			publish(t, h, "late", "b")
		}, sse.CloseKicked, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newKeeper()
			h := newHubOn(t, k, sse.Options{})
			publish(t, h, "a", "a")
			publish(t, h, "b", "b")
			publish(t, h, "a", "a")
			s := connect(t, h, sse.Latest(), "a", "b")
			s.Leave()
			s = connect(t, h, after(h, 0), "a", "b")
			h.EvictAll()
			acted := false
			k.beforeRead = func() {
				if !acted {
					acted = true
					tc.act(t, h)
				}
			}
			var got []string
			closing := sse.CloseReason("")
			for closing == "" {
				var frames []byte
				if frames, _, closing = s.Pull(); len(frames) == 0 {
					break
				}
				for _, word := range wire(t, frames) {
					if !strings.HasPrefix(word, "@") {
						got = append(got, word)
					}
				}
			}
			checkWords(t, "the stream", got, tc.want)
			if !acted || closing != tc.closing {
				t.Errorf("acted: %v; the stream closes with %q, want %q", acted, closing, tc.closing)
			}
			s.Leave()
		})
	}
}

// TestChangeOfAKickedSession holds a bug: a client was checked when the header of
// its request came, and held the body back until it had been kicked and had come
// back with less. What it asked for then was added to the new stream.
func TestChangeOfAKickedSession(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := connect(t, h, sse.Latest(), "a")
	session := knows(t, h, "c")
	s.Leave()
	s = connect(t, h, sse.Latest(), "a")
	if knows(t, h, "c") != session {
		t.Error("a client that comes back is another")
	}
	kick(t, h, sse.Selection{Connection: "c"})
	s.Leave()
	s = connect(t, h, sse.Latest(), "a")
	if _, err := h.Change(t.Context(), "c", "", sse.Change{Subscribe: []string{"b"}, Session: session}); !errors.Is(err, sse.ErrNoConnection) {
		t.Errorf("got %v", err)
	}
	changed(t, h, "c", sse.Change{Subscribe: []string{"b"}, Session: knows(t, h, "c")})
	s.Leave()
}

// TestOvertaken holds a bug: a client was allowed by what stands in front, and its
// stream was not there yet when everything was taken away from its user. It began
// afterwards, with all that it had been allowed.
func TestOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, sse.Options{})
		ask := sse.SubscribeOptions{User: "bob", Channels: []string{"team"}, Asked: time.Now()}
		time.Sleep(time.Millisecond)
		kick(t, h, sse.Selection{User: "bob"})
		if _, err := h.Subscribe(t.Context(), ask); !errors.Is(err, sse.ErrOvertaken) {
			t.Errorf("after a kick: %v", err)
		}
		time.Sleep(time.Millisecond)
		ask.Asked = time.Now()
		subscribeWith(t, h, ask).Leave()
		time.Sleep(time.Millisecond)
		for _, tc := range []struct {
			sel    sse.Selection
			change sse.Change
			want   error
		}{
			{sse.Selection{User: "alice"}, sse.Change{Unsubscribe: []string{"team"}}, nil},
			{sse.Selection{Channel: "news"}, sse.Change{Unsubscribe: []string{"news"}}, nil},
			{sse.Selection{User: "bob"}, sse.Change{Subscribe: []string{"more"}}, nil},
			{sse.Selection{Channel: "team"}, sse.Change{Unsubscribe: []string{"team"}}, sse.ErrOvertaken},
		} {
			if _, err := h.AssignAll(t.Context(), tc.sel, tc.change); err != nil {
				t.Fatal(err)
			}
			s, err := h.Subscribe(t.Context(), ask)
			if !errors.Is(err, tc.want) {
				t.Errorf("after %+v of %+v: %v, want %v", tc.change, tc.sel, err, tc.want)
			}
			if err == nil {
				s.Leave()
			}
		}
		// Very many are as good as one for everybody.
		ask.Asked, ask.User = time.Now(), "carol"
		time.Sleep(time.Millisecond)
		for range sse.MaxBarriers + 2 {
			kick(t, h, sse.Selection{User: "somebody"})
		}
		ask.Channels = []string{"else"}
		if _, err := h.Subscribe(t.Context(), ask); !errors.Is(err, sse.ErrOvertaken) {
			t.Errorf("after very many: %v", err)
		}
	})
}
