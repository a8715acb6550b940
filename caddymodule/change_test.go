package caddymodule_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// Connection ids as clients make them.
const (
	aliceID = "6f1c1b52-8f0a-4d0e-9d37-5a1a0c0ffee0"
	bobID   = "0b0b0b0b-8f0a-4d0e-9d37-5a1a0c0ffee1"
)

const jsonType = "Content-Type: application/json"

// basicUsers is a site where a password says who is who: alice:secret and
// bob:secret.
const basicUsers = `basic_auth /events* {
		alice $2a$04$DRfddpOqh/uwXBakKZEreu.vtasfb.EA85b6PErPKbRVbCYeWk0h2
		bob $2a$04$DRfddpOqh/uwXBakKZEreu.vtasfb.EA85b6PErPKbRVbCYeWk0h2
	}
	`

// changeReply is the answer to a change.
type changeReply struct {
	Channels []string `json:"channels"`
}

// change changes what a connection gets, and checks what it has afterwards.
func (l *lab) change(path, body string, want []string, header ...string) {
	l.t.Helper()
	var got changeReply
	l.do("POST", l.site+path, body, append(header, jsonType)...).into(l.t, &got)
	if !slices.Equal(got.Channels, want) {
		l.t.Errorf("%s %s: it has %q, want %q", path, body, got.Channels, want)
	}
}

func expectChannels(t *testing.T, s *ssetest.Stream, want string) {
	t.Helper()
	if got := s.Expect("hub:channels").Data; got != `{"channels":`+want+`}` {
		t.Errorf("got hub:channels %s, want %s", got, want)
	}
}

// TestChangeChannels promises that a client changes the channels of its live
// stream, by a body or by a path; that a publish which follows the answer is
// delivered, or is not; and that the browser's own reconnect gets the changed set
// back and misses nothing.
func TestChangeChannels(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	l.publish("old", "before")
	s, _ := l.open("?channel=a&connection=" + aliceID)
	of := "?connection=" + aliceID

	l.change("/events"+of, `{"subscribe":["b","c/d"],"unsubscribe":["a"]}`, []string{"b", "c/d"})
	l.publish("a", "gone")
	if r := l.publish("b", "b1"); r.Subscribers != 1 {
		t.Errorf("the publish reached %d", r.Subscribers)
	}
	expectChannels(t, s, `["b","c/d"]`)
	expectData(t, s, "b1")

	l.change("/events/subscribe/x/unsubscribe/y"+of, "", []string{"b", "c/d", "x/unsubscribe/y"})
	expectChannels(t, s, `["b","c/d","x/unsubscribe/y"]`)
	l.change("/events/unsubscribe/x%2Funsubscribe%2Fy"+of, "", []string{"b", "c/d"})
	expectChannels(t, s, `["b","c/d"]`)
	l.change("/EVENTS/subscribe/old"+of+"&since=earliest", "", []string{"b", "c/d", "old"})
	expectChannels(t, s, `["b","c/d","old"]`)
	expectData(t, s, "before")
	l.publish("b", "b2")
	expectData(t, s, "b2")
	last := s.LastEventID()
	s.Close()
	eventually(t, "the stream has ended", func() bool { return l.numbers("").Streams == 0 })

	l.publish("c/d", "missed")
	l.change("/events/subscribe/late"+of, "", []string{"b", "c/d", "old", "late"})
	s, open := l.open("?channel=a&connection="+aliceID, "Last-Event-ID: "+last)
	if want := []string{"b", "c/d", "old", "late"}; !slices.Equal(open.Channels, want) || open.Resume != "complete" {
		t.Errorf("came back with %+v, want %q", open, want)
	}
	expectData(t, s, "missed")
	l.publish("late", "late")
	expectData(t, s, "late")
	s.Close()
}

// TestChangeIsRefused promises a clear answer to whoever may not change a
// connection, and that it is left alone: 404 for one that is not theirs, whatever
// they ask.
func TestChangeIsRefused(t *testing.T) {
	l := loadLab(t, "", basicUsers+`sse /events* {
		channel all user-{http.auth.user.id}
		allow public-* {http.auth.user.id}-*
		limits {
			channels 4
		}
	}`)
	asAlice, asBob := basic("alice"), basic("bob")
	s, _ := l.open("?channel=public-1&connection="+aliceID, asAlice)
	of := "?connection=" + aliceID
	for _, tc := range []struct {
		name, path, body, as string
		status               int
		field                string
		parts                []string
	}{
		{"another user", of, `{"subscribe":["public-2"]}`, asBob, 404, "connection", []string{"no such connection"}},
		{"another user asks for what he may not have", of, `{"subscribe":["alice-1"]}`, asBob, 404, "connection", nil},
		{"another user, nonsense", of, `nonsense`, asBob, 404, "connection", nil},
		{"unknown", "?connection=" + bobID, `{"subscribe":["public-2"]}`, asAlice, 404, "connection", nil},
		{"too short", "?connection=x", `{"subscribe":["public-2"]}`, asAlice, 404, "connection", nil},
		{"injected", "?connection=" + escape(aliceID+"\r\n"), `{"subscribe":["public-2"]}`, asAlice, 404, "connection", nil},
		{"none", "", `{"subscribe":["public-2"]}`, asAlice, 400, "connection", []string{"?connection="}},
		{"two", of + "&connection=" + bobID, `{"subscribe":["public-2"]}`, asAlice, 400, "connection", nil},
		{"not allowed", of, `{"subscribe":["public-2","secret"]}`, asAlice, 403, "channel", []string{`"secret"`}},
		{"another's", "/subscribe/bob-1" + of, "", asAlice, 403, "channel", []string{`"bob-1"`}},
		{"wider", "/subscribe/p*" + of, "", asAlice, 403, "channel", []string{`"p*"`}},
		{"everything", "/subscribe/*" + of, "", asAlice, 403, "channel", nil},
		{"no name", "/subscribe/" + of, "", asAlice, 400, "channel", []string{"empty"}},
		{"a malformed name", "/subscribe/a%20b" + of, "", asAlice, 400, "channel", nil},
		{"what everybody has", "/unsubscribe/all" + of, "", asAlice, 400, "channel", []string{"every client"}},
		{"too many", of, `{"subscribe":["public-2","public-3"]}`, asAlice, 400, "channel", []string{"4 channels"}},
		{"a malformed since", "/subscribe/public-2" + of + "&since=yesterday", "", asAlice, 400, "since", []string{"earliest"}},
		{"a malformed since in the body", of, `{"subscribe":["public-2"],"since":"1-2"}`, asAlice, 400, "since", nil},
		{"nothing", of, `{}`, asAlice, 400, "", []string{"nothing to change"}},
		{"an unknown field", of, `{"subscribe":["public-2"],"sinc":"x"}`, asAlice, 400, "sinc", []string{"sinc"}},
		{"a field of another case", of, `{"Subscribe":["public-2"]}`, asAlice, 400, "Subscribe", nil},
		{"a field twice", of, `{"subscribe":["public-2"],"subscribe":["public-3"]}`, asAlice, 400, "subscribe", []string{"twice"}},
		{"null", of, `{"subscribe":null}`, asAlice, 400, "subscribe", nil},
		{"no object", of, `["public-2"]`, asAlice, 400, "", []string{"object"}},
		{"two objects", of, `{"subscribe":["public-2"]}{}`, asAlice, 400, "", nil},
		{"a name that is no string", of, `{"subscribe":[1]}`, asAlice, 400, "subscribe", []string{"array of strings"}},
		{"not UTF-8", of, "{\"subscribe\":[\"public-\xff\"]}", asAlice, 400, "", []string{"UTF-8"}},
		{"too large", of, `{"subscribe":["` + strings.Repeat("a", 128<<10) + `"]}`, asAlice, 413, "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := l.in(t)
			p := l.do("POST", l.site+"/events"+tc.path, tc.body, tc.as, jsonType).problem(t, tc.status, tc.parts...)
			if p.Field != tc.field {
				t.Errorf("the field is %q, want %q: %s", p.Field, tc.field, p.Detail)
			}
		})
	}
	l.do("POST", l.site+"/events"+of, `{"subscribe":["public-2"]}`, asAlice, "Content-Type: text/plain").problem(t, 415, "application/json")
	l.do("POST", l.site+"/events"+of, "x", asAlice, jsonType, "Content-Encoding: gzip").problem(t, 415, "gzip")
	if got := l.do("POST", l.site+"/events"+of, `{"subscribe":["public-2"]}`, jsonType); got.StatusCode != 401 {
		t.Errorf("without a password: %d", got.StatusCode)
	}
	r := l.publish("all", "untouched")
	expectData(t, s, "untouched")
	if r.Subscribers != 1 {
		t.Errorf("it reached %d", r.Subscribers)
	}

	// Bob cannot take the connection over either, while it is open.
	l.do("GET", l.site+"/events?channel=public-1&connection="+aliceID, "", asBob).problem(t, 403, "another client")
	refused := l.numbers("").Refused
	if refused["unknown"] != 6 || refused["forbidden"] != 5 || refused["too_large"] != 1 || refused["malformed"] < 10 {
		t.Errorf("refusals were counted as %v", refused)
	}
	s.Close()
}

func basic(user string) string {
	req, _ := http.NewRequest("GET", "/", nil)
	req.SetBasicAuth(user, "secret")
	return "Authorization: " + req.Header.Get("Authorization")
}

// TestReplaced promises that a client which opens its connection again, because
// the network went away without a word, takes its own place, also where there is
// no other.
func TestReplaced(t *testing.T) {
	l := loadLab(t, "", basicUsers+"sse /events* {\n\t\tallow *\n\t\tlimits {\n\t\t\tper_user 1\n\t\t}\n\t}")
	first, _ := l.open("?channel=a&connection="+aliceID, basic("alice"))
	l.change("/events/subscribe/b?connection="+aliceID, "", []string{"a", "b"}, basic("alice"))
	expectChannels(t, first, `["a","b"]`)
	second, open := l.open("?channel=a&connection="+aliceID, basic("alice"))
	expectClosed(t, first, "replaced")
	if !slices.Equal(open.Channels, []string{"a", "b"}) {
		t.Errorf("the second has %q", open.Channels)
	}
	l.publish("b", "b")
	expectData(t, second, "b")
	if other, _ := l.openAt("/events?channel=a&connection="+bobID, basic("alice")); other.LastEventID() != "" {
		t.Errorf("a second connection was let in")
	}
	second.Close()
}

// TestControl promises what backends see of the streams, and that they change and
// end them, by both doors: one, a user's, and a channel's.
func TestControl(t *testing.T) {
	l := loadLab(t, "", basicUsers+anyChannel+"\n\tsse_api /api* {\n\t\ttoken secret\n\t}")
	for _, door := range []struct{ base, header string }{
		{l.admin + "/sse", "X-Nothing: 1"},
		{l.site + "/api", "Authorization: Bearer secret"},
	} {
		t.Run(door.base[len(door.base)-4:], func(t *testing.T) {
			l := l.in(t)
			do := func(method, path, body string) reply {
				return l.do(method, door.base+path, body, door.header, jsonType)
			}
			alice, _ := l.open("?channel=a&connection="+aliceID, basic("alice"))
			second, _ := l.open("?channel=a*", basic("alice"))
			bob, _ := l.open("?channel=b&connection="+bobID, basic("bob"))

			type info struct {
				Connection, User, Address, Opened string
				Channels                          []string
			}
			var page struct {
				Connections []info
				Next        string
			}
			list := func(query string) int {
				page.Connections, page.Next = nil, ""
				do("GET", "/connections"+query, "").into(t, &page)
				return len(page.Connections)
			}
			if n := list(""); n != 3 {
				t.Fatalf("there are %d: %+v", n, page)
			}
			for query, want := range map[string]int{
				"?user=alice": 2, "?user=nobody": 0, "?channel=a": 2, "?channel=a1": 1, "?channel=b&user=alice": 0, "?channel=*": 3, "?limit=2": 2,
			} {
				if got := list(query); got != want {
					t.Errorf("%s: got %d, want %d", query, got, want)
				}
			}
			if list("?limit=2"); page.Next != page.Connections[1].Connection || list("?limit=2&after="+page.Next) != 1 {
				t.Errorf("pages do not follow each other: %+v", page)
			}
			list("?user=bob")
			if got := page.Connections[0]; got.Connection != bobID || got.Address != "127.0.0.1" || !slices.Equal(got.Channels, []string{"b"}) || got.Opened == "" {
				t.Errorf("bob is %+v", got)
			}

			var changed changeReply
			do("POST", "/connections/"+bobID+"/channels", `{"subscribe":["given"],"unsubscribe":["b"]}`).into(t, &changed)
			if !slices.Equal(changed.Channels, []string{"given"}) {
				t.Errorf("bob has %q", changed.Channels)
			}
			expectChannels(t, bob, `["given"]`)
			l.publish("b", "withdrawn")
			l.publish("given", "given")
			expectData(t, bob, "given")
			l.do("POST", l.site+"/events/subscribe/b?connection="+bobID, "", basic("bob")).problem(t, 403, "withdrawn")

			var count struct{ Connections, Kicked int }
			do("POST", "/connections/channels?user=alice", `{"subscribe":["news"]}`).into(t, &count)
			if count.Connections != 2 {
				t.Errorf("changed %d", count.Connections)
			}
			expectChannels(t, alice, `["a","news"]`)
			expectChannels(t, second, `["a*","news"]`)
			do("POST", "/connections/channels?channel=a", `{"unsubscribe":["a"]}`).problem(t, 400, "a*", "connection")
			expectChannels(t, alice, `["news"]`)

			do("DELETE", "/connections/"+bobID, "").into(t, &count)
			expectClosed(t, bob, "kicked")
			do("DELETE", "/connections?user=alice&channel=news", "").into(t, &count)
			if count.Kicked != 2 {
				t.Errorf("kicked %d", count.Kicked)
			}
			expectClosed(t, alice, "kicked")
			expectClosed(t, second, "kicked")

			// What bob had been given does not come back with him.
			again, open := l.open("?channel=b&connection="+bobID, basic("bob"))
			if !slices.Equal(open.Channels, []string{"b"}) {
				t.Errorf("bob came back with %q", open.Channels)
			}
			again.Close()

			for _, tc := range []struct {
				method, path, body string
				status             int
				part               string
			}{
				{"DELETE", "/connections", "", 400, "?user="},
				{"DELETE", "/connections?usr=alice", "", 400, "usr"},
				{"DELETE", "/connections?channel=a,b", "", 400, "channel"},
				{"DELETE", "/connections/" + aliceID, "", 404, "no such connection"},
				{"DELETE", "/connections/", "", 404, "no such connection"},
				{"GET", "/connections/" + bobID, "", 405, "DELETE"},
				{"PUT", "/connections", "", 405, "GET"},
				{"GET", "/connections/channels?user=alice", "", 405, "POST"},
				{"GET", "/connections/" + bobID + "/channels", "", 405, "POST"},
				{"POST", "/connections/channels", `{"subscribe":["a"]}`, 400, "?user="},
				{"POST", "/connections/" + aliceID + "/channels", `{"subscribe":["a"]}`, 404, "no such connection"},
				{"POST", "/connections/" + aliceID + "/channels", `{"subscribe":["a b"]}`, 400, "not allowed"},
				{"POST", "/connections/" + aliceID + "/channels", `{}`, 400, "nothing"},
			} {
				t.Run(tc.method+" "+tc.path, func(t *testing.T) {
					do(tc.method, tc.path, tc.body).problem(t, tc.status, tc.part)
				})
			}
			eventually(t, "the streams have ended", func() bool { return l.numbers("").Streams == 0 })
		})
	}
}

// TestControlNeedsAll promises that a publisher who is confined to some channels
// neither sees, changes nor ends connections, and does not see other channels.
func TestControlNeedsAll(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\tsse_api /api* {\n\t\ttoken secret\n\t\tallow stocks-*\n\t}")
	l.publish("private", "private")
	l.publish("stocks-1", "stock")
	s, _ := l.open("?channel=stocks-1&connection=" + aliceID)
	auth := "Authorization: Bearer secret"
	for _, tc := range []struct{ method, path, body, part string }{
		{"GET", "/connections", "", "all channels"},
		{"DELETE", "/connections/" + aliceID, "", "all channels"},
		{"DELETE", "/connections?channel=stocks-1", "", "all channels"},
		{"POST", "/connections/" + aliceID + "/channels", `{"subscribe":["stocks-2"]}`, "all channels"},
		{"POST", "/connections/channels?channel=stocks-1", `{"unsubscribe":["stocks-1"]}`, "all channels"},
		{"GET", "/channels/private", "", "private"},
		{"DELETE", "/channels/private", "", "private"},
		{"POST", "/publish/private", "x", "private"},
	} {
		l.do(tc.method, l.site+"/api"+tc.path, tc.body, auth, jsonType).problem(t, 403, tc.part)
	}
	var page struct {
		Channels []struct{ Channel string }
	}
	got := l.do("GET", l.site+"/api/channels", "", auth)
	if decodeLoosely(t, got.body, &page); len(page.Channels) != 1 || page.Channels[0].Channel != "stocks-1" {
		t.Errorf("it sees the channels %s", got.body)
	}
	s.Close()
}

// TestReconnectAfterWithdrawal holds a bug: as documented, the app first refused a
// channel, and then had it taken away from the streams. The browser's own
// reconnect, whose URL still named it, was answered 403, upon which an EventSource
// gives up for good, instead of getting what was left.
func TestReconnectAfterWithdrawal(t *testing.T) {
	l := loadLab(t, "", "sse /events* {\n\t\tallow {http.request.header.X-Channels}\n\t}")
	s, _ := l.open("?channel=news&channel=team-7&connection="+aliceID, "X-Channels: news, team-7")
	var count struct{ Connections int }
	l.do("POST", l.admin+"/sse/connections/channels?channel=team-7", `{"unsubscribe":["team-7"]}`, jsonType).into(t, &count)
	s.Close()
	eventually(t, "the stream has ended", func() bool { return l.numbers("").Streams == 0 })
	s, open := l.open("?channel=news&channel=team-7&connection="+aliceID, "X-Channels: news")
	if !slices.Equal(open.Channels, []string{"news"}) {
		t.Errorf("came back with %q", open.Channels)
	}
	s.Close()
	l.do("GET", l.site+"/events?channel=news&channel=team-7&connection="+bobID, "", "X-Channels: news").problem(t, 403, "team-7")
}
