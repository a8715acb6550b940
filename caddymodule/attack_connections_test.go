package caddymodule_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

const unknownID = "ffffffff-8f0a-4d0e-9d37-5a1a0c0fffff"

// TestAttackEnumeration promises that who asks for the connection of another user
// learns as much as who asks for one that never was: the same bytes, whether its
// stream is open, or its client is gone for a while, and whatever he asks.
func TestAttackEnumeration(t *testing.T) {
	l := loadLab(t, "", basicUsers+"sse /events* {\n\t\tchannel all\n\t\tallow public-* {http.auth.user.id}-*\n\t}")
	alice, bob := basic("alice"), basic("bob")
	s, _ := l.open("?channel=public-1&connection="+aliceID, alice)
	l.change("/events/subscribe/alice-1?connection="+aliceID, "", []string{"all", "public-1", "alice-1"}, alice)
	expectChannels(t, s, `["all","public-1","alice-1"]`)
	ask := func(when string) {
		for _, tc := range []struct{ path, body, contentType string }{
			{"", `{"subscribe":["public-2"]}`, "application/json"},
			{"", `{"subscribe":["public-1"]}`, "application/json"},
			{"", `{"subscribe":["alice-1"]}`, "application/json"},
			{"", `{"unsubscribe":["all"]}`, "application/json"},
			{"", `{"unsubscribe":["public-1"]}`, "application/json"},
			{"", `{"subscribe":["public-2"],"since":"earliest"}`, "application/json"},
			{"", `nonsense`, "application/json"},
			{"", strings.Repeat("x", 20_000), "application/json"},
			{"", `{}`, "text/plain"},
			{"/subscribe/public-2", "", ""},
			{"/subscribe/*", "", ""},
			{"/unsubscribe/alice-1", "", ""},
			{"/subscribe/", "", ""},
		} {
			var answers []string
			for _, id := range []string{aliceID, unknownID, strings.ToUpper(aliceID), aliceID[:22]} {
				got := l.do("POST", l.site+"/events"+tc.path+"?connection="+id, tc.body, bob, "Content-Type: "+tc.contentType)
				got.refused(t, 404)
				got.Header.Del("Date")
				answers = append(answers, strings.ReplaceAll(fmt.Sprint(got.Status, got.Header, got.body), id, "…"))
			}
			if len(slices.Compact(answers)) != 1 {
				t.Errorf("%s, %s %.40s: the answers differ: %q", when, tc.path, tc.body, answers)
			}
		}
	}
	ask("open")
	l.publish("alice-1", "still there")
	expectData(t, s, "still there")
	s.Close()
	eventually(t, "the stream has ended", func() bool { return l.numbers("").Streams == 0 })
	ask("gone")
	s, open := l.open("?channel=public-1&connection="+aliceID, alice)
	if !slices.Equal(open.Channels, []string{"all", "public-1", "alice-1"}) {
		t.Errorf("she came back to %q", open.Channels)
	}
	s.Close()
}

// TestAttackTakeover promises that nobody takes over the stream of another user by
// its connection, be it open or gone, nor gets what the other had.
func TestAttackTakeover(t *testing.T) {
	l := loadLab(t, "", basicUsers+"sse /events* {\n\t\tallow public {http.auth.user.id}-*\n\t}\n\tsse /open* {\n\t\tallow *\n\t}")
	alice, bob := basic("alice"), basic("bob")
	s, _ := l.open("?channel=alice-1&connection="+aliceID, alice)
	l.change("/events/subscribe/alice-2?connection="+aliceID, "", []string{"alice-1", "alice-2"}, alice)
	expectChannels(t, s, `["alice-1","alice-2"]`)
	for _, path := range []string{"/events?channel=public&connection=" + aliceID, "/open?channel=public&connection=" + aliceID} {
		l.do("GET", l.site+path, "", bob).refused(t, 403)
		l.do("GET", l.site+path+"&since=earliest", "", bob, "Last-Event-ID: "+s.LastEventID()).refused(t, 403)
	}
	l.do("POST", l.site+"/open/subscribe/public?connection="+aliceID, "", bob).refused(t, 404)
	l.publish("alice-2", "hers")
	expectData(t, s, "hers")
	s.Close()
	eventually(t, "the stream has ended", func() bool { return l.numbers("").Streams == 0 })
	l.do("GET", l.site+"/events?channel=public&since=earliest&connection="+aliceID, "", bob).refused(t, 403)
	s, open := l.open("?channel=alice-1&connection="+aliceID, alice)
	if !slices.Equal(open.Channels, []string{"alice-1", "alice-2"}) {
		t.Errorf("she came back to %q", open.Channels)
	}
	s.Close()
}

// TestAttackKicked promises that what a client had been given is gone when it was
// kicked: it does not come back with the connection, a change of it is answered
// 404, and nothing of it is sent by way of an old position.
func TestAttackKicked(t *testing.T) {
	l := loadLab(t, "", basicUsers+"sse /events* {\n\t\tallow public\n\t}")
	alice := basic("alice")
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprintf("gone %t", gone), func(t *testing.T) {
			l := l.in(t)
			s, _ := l.open("?channel=public&connection="+aliceID, alice)
			var changed changeReply
			l.do("POST", l.admin+"/sse/connections/"+aliceID+"/channels", `{"subscribe":["vip"]}`, jsonType).into(t, &changed)
			expectChannels(t, s, `["public","vip"]`)
			l.publish("vip", "for her")
			expectData(t, s, "for her")
			last := s.LastEventID()
			if gone {
				s.Close()
				eventually(t, "the stream has ended", func() bool { return l.numbers("").Streams == 0 })
			}
			if got := l.do("DELETE", l.admin+"/sse/connections?user=alice", ""); got.StatusCode != 200 || !strings.Contains(got.body, "1") {
				t.Fatalf("kicked %s", got.body)
			}
			if !gone {
				expectClosed(t, s, "kicked")
			}
			for _, path := range []string{"/subscribe/public", "/subscribe/vip", "/unsubscribe/public"} {
				l.do("POST", l.site+"/events"+path+"?since=earliest&connection="+aliceID, "", alice).refused(t, 404)
			}
			l.publish("vip", "not for her any more")
			for _, query := range []string{"&since=earliest", "", "&since=" + last} {
				again, open := l.open("?channel=public&connection="+aliceID+query, alice)
				if !slices.Equal(open.Channels, []string{"public"}) {
					t.Errorf("she came back to %q", open.Channels)
				}
				l.do("POST", l.site+"/events/subscribe/vip?since=earliest&connection="+aliceID, "", alice).refused(t, 403)
				if query != "&since=earliest" { // that gets the earlier ones first
					l.onlyGets(again, "public", "vip")
				}
				again.Close()
				eventually(t, "the stream has ended", func() bool { return l.numbers("").Streams == 0 })
			}
		})
	}
}

// TestAttackWithdrawn promises that a client from which the backend withdrew a
// channel gets no event of it that is published later, for as long as its
// connection is known: not on the open stream, nor by coming back in any way.
func TestAttackWithdrawn(t *testing.T) {
	l := loadLab(t, "", "sse /events* {\n\t\tallow *\n\t}\n\tsse /other* {\n\t\tchannel room-*\n\t\tallow public\n\t}\n\tsse /third* {\n\t\tchannel room-1\n\t\tallow public\n\t}")
	for i, way := range []struct{ name, path, query, header string }{
		{"by its position", "/events", "?channel=public&channel=room-1", "Last-Event-ID: %s"},
		{"from the earliest", "/events", "?channel=public&channel=room-1&since=earliest", ""},
		{"by a pattern", "/events", "?channel=public&channel=room-*&channel=*", "Last-Event-ID: %s"},
		{"with a position in the query", "/events", "?channel=room-1&channel=public&since=%s", ""},
		{"on a route that gives it to all", "/third", "?channel=public", "Last-Event-ID: %s"},
		{"on a route that gives a pattern to all", "/other", "?channel=public", "Last-Event-ID: %s"},
	} {
		t.Run(way.name, func(t *testing.T) {
			l := l.in(t)
			id := fmt.Sprintf("%s%04d", aliceID[:32], i)
			s, _ := l.open("?channel=public&channel=room-1&connection=" + id)
			l.publish("room-1", "before")
			expectData(t, s, "before")
			last := s.LastEventID()
			var changed changeReply
			l.do("POST", l.admin+"/sse/connections/"+id+"/channels", `{"unsubscribe":["room-1"]}`, jsonType).into(t, &changed)
			expectChannels(t, s, `["public"]`)
			l.onlyGets(s, "public", "room-1")
			for _, ask := range []string{`["room-1"]`, `["room-*"]`, `["*"]`, `["room-1*"]`, `["public","room-1"]`} {
				l.do("POST", l.site+"/events?connection="+id, `{"subscribe":`+ask+`,"since":"earliest"}`, jsonType).refused(t, 403)
				l.do("POST", l.site+"/events?connection="+id, `{"subscribe":`+ask+`,"unsubscribe":`+ask+`,"since":"`+last+`"}`, jsonType).refused(t, 400, 403)
			}
			s.Close()
			eventually(t, "the stream has ended", func() bool { return l.numbers("").Streams == 0 })
			l.do("POST", l.site+"/events/subscribe/room-1?since=earliest&connection="+id, "").refused(t, 403)

			query := strings.ReplaceAll(way.query, "%s", last)
			var header []string
			if way.header != "" {
				header = []string{strings.ReplaceAll(way.header, "%s", last)}
			}
			w := l.openWhole(way.path + query + "&connection=" + id + headerQuery(header))
			l.publish("room-1", "leaked later")
			l.publish("public", "the last")
			for _, e := range first(w.end(id)) {
				if strings.Contains(e.data, "leaked") {
					t.Errorf("it got %q", e)
				}
			}
		})
	}
}

// headerQuery gives a position in the query, as a page does that cannot set the
// header.
func headerQuery(header []string) string {
	if len(header) == 0 {
		return ""
	}
	return "&last_event_id=" + strings.TrimPrefix(header[0], "Last-Event-ID: ")
}

func first(events []parsed, _ []string) []parsed { return events }

// An authority says, as the backend of forward_auth, what a client may have.
type authority struct {
	*httptest.Server
	grants atomic.Value // string
}

func newAuthority(t *testing.T, grants string) *authority {
	a := &authority{}
	a.grants.Store(grants)
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if text := a.grants.Load().(string); text != "" {
			w.Header().Set("X-Channels", text)
		}
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *authority) route() string {
	address, _ := url.Parse(a.URL)
	return "forward_auth /events* " + address.Host + " {\n\t\turi /auth\n\t\tcopy_headers X-Channels\n\t}\n\tsse /events* {\n\t\tallow {http.request.header.X-Channels}\n\t}"
}

// TestAttackNarrowedAuth promises that a client whose grant was withdrawn, so that
// what stands in front allows less now, gets no event of that channel when it
// comes back or changes: not by its session, nor by a position, nor from history.
func TestAttackNarrowedAuth(t *testing.T) {
	auth := newAuthority(t, "public,secret,room-*")
	l := loadLab(t, "", auth.route())
	for i, cursor := range []string{"before the backfill", "in the backfill", "after it", "earliest", "none", "forged"} {
		t.Run(cursor, func(t *testing.T) {
			l := l.in(t)
			auth.grants.Store("public,secret,room-*")
			id := fmt.Sprintf("%s%04d", aliceID[:32], i)
			l.publish("secret", "old")
			l.publish("room-7", "old")
			s, _ := l.open("?channel=public&connection=" + id)
			position := s.LastEventID()
			l.change("/events?connection="+id, `{"subscribe":["secret","room-*"],"since":"earliest"}`, []string{"public", "secret", "room-*"})
			expectChannels(t, s, `["public","secret","room-*"]`)
			head := s.LastEventID()
			switch cursor {
			case "in the backfill":
				position = head
			case "after it":
				for s.Expect("message").Data != "old" {
				}
				l.publish("public", "marker")
				for s.Expect("message").Data != "marker" {
				}
				position = s.LastEventID()
			case "forged":
				epoch, _, _ := strings.Cut(position, ".")
				position = epoch + ".1-1-1"
			}
			s.Close()
			eventually(t, "the stream has ended", func() bool { return l.numbers("").Streams == 0 })
			auth.grants.Store("public")
			l.publish("secret", "leaked")
			l.publish("room-7", "leaked")

			l.do("POST", l.site+"/events?connection="+id, `{"subscribe":["secret"],"since":"earliest"}`, jsonType).refused(t, 403)
			l.do("POST", l.site+"/events/subscribe/room-7?since="+position+"&connection="+id, "").refused(t, 403)
			for _, ask := range []string{"channel=secret", "channel=room-7", "channel=room-*", "channel=public&channel=secret"} {
				l.do("GET", l.site+"/events?"+ask+"&since=earliest&connection="+id, "", "X-Channels: secret,room-*,*").refused(t, 403)
			}
			query := "/events?channel=public&connection=" + id
			switch cursor {
			case "earliest":
				query += "&since=earliest"
			case "none":
			default:
				query += "&since=" + position
			}
			w := l.openWhole(query)
			l.do("POST", l.site+"/events?connection="+id, `{"subscribe":["secret"],"since":"earliest"}`, jsonType).refused(t, 403)
			l.publish("secret", "leaked")
			l.publish("room-7", "leaked")
			l.publish("public", "the last")
			events := first(w.end(id))
			for _, e := range events {
				if e.data == "leaked" || e.data == "old" || (e.event == "hub:open" && strings.Contains(e.data, "secret")) {
					t.Errorf("it got %q", e)
				}
			}
			if events[len(events)-2].data != "the last" {
				t.Errorf("the stream ends with %q", events[len(events)-2:])
			}
		})
	}
	// A list that is not there allows nothing, whatever the client sends.
	auth.grants.Store("")
	for _, name := range []string{"X-Channels", "x-channels", "X-CHANNELS", "X_Channels"} {
		l.do("GET", l.site+"/events?channel=secret", "", name+": secret").refused(t, 403)
		l.rawRequest(l.sitePort, "GET", "/events?channel=secret", "", name+": secret", "Connection: "+name).refused(t, 403, 400)
	}
}

// TestAttackLimitsByRacing promises that a route has no more streams than its limit,
// however its clients race to replace their own streams, and that all of them end
// when the route goes.
func TestAttackLimitsByRacing(t *testing.T) {
	l := loadLab(t, "", "sse /events* {\n\t\tallow *\n\t\tlimits {\n\t\t\tconnections 1\n\t\t}\n\t}")
	for round := range 100 {
		id := fmt.Sprintf("%s%04d", aliceID[:32], round)
		var racing sync.WaitGroup
		responses := make([]*http.Response, 8)
		for i := range responses {
			req := l.request("GET", l.site+"/events?channel=a&connection="+id, nil)
			racing.Go(func() {
				if resp, err := l.client.Do(req); err == nil {
					responses[i] = resp
				}
			})
		}
		racing.Wait()
		// All are turned away if the last round's stream has not given its place back.
		var more []*ssetest.Stream
		eventually(t, "one stream is left", func() bool {
			n := l.numbers("").Streams
			if n == 0 {
				s, _ := l.openAt("/events?channel=a&connection=" + id)
				more = append(more, s)
			}
			return n == 1
		})
		refused, _ := l.openAt("/events?channel=a&connection=" + unknownID)
		if n := l.numbers("").Streams; n > 1 {
			t.Errorf("round %d: there are %d streams, where one may be", round, n)
		}
		if round == 99 || t.Failed() {
			l.load("", "sse /events* {\n\t\tallow b*\n\t}")
			eventually(t, "the streams have ended with their route", func() bool { return l.numbers("").Streams == 0 })
		}
		refused.Close()
		for _, s := range more {
			s.Close()
		}
		for _, resp := range responses {
			resp.Body.Close()
		}
		if t.Failed() {
			return
		}
		eventually(t, "all have ended", func() bool { return l.numbers("").Streams == 0 })
	}
}
