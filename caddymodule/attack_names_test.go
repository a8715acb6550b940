package caddymodule_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// narrow is a route on which a client may ask for what begins with ab, and for
// `exact`, and the neighbours of these names, on which it gets nothing.
const narrow = "sse /events* {\n\t\tallow ab* exact\n\t}\n\tsse /all* {\n\t\tallow *\n\t}"

var narrowNeighbours = []string{"a", "a*b", "ac", "b", "secret", "exac", "exactly", "exact-1", "EXACT", "AB1", "%2A", "%252A", "exact%00", "а" /* Cyrillic */ + "b", "exact\u0301", "\uff41\uff42"}

// mayHave is what narrow allows, in other words than the code's.
func mayHave(name string) bool {
	return name == "exact" || (len(name) >= 2 && name[:2] == "ab")
}

// Names that a client could try, percent-encoded as they are sent.
var hostileNames = []struct {
	raw      string
	statuses []int
}{
	{"a*", []int{403}},
	{"*", []int{403}},
	{"ab**", []int{400}},
	{"ab*c", []int{400}},
	{"**", []int{400}},
	{"*ab", []int{400}},
	{"%2A", []int{403}},
	{"a%2A", []int{403}},
	{"ab%2A%2A", []int{400}},
	{"exact*", []int{403}},
	{"exac*", []int{403}},
	{"ab%2A", []int{200}},       // as ab*, which is allowed
	{"%252A", []int{403}},       // the name %2A
	{"ab%252A", []int{200}},     // the name ab%2A
	{"ab%2525", []int{200}},     // decoded once
	{"%61*", []int{403}},        // a*
	{"se%63ret", []int{403}},    // secret
	{"%c0%ae", []int{400}},      // a dot that is too long
	{"ab%c0%aa", []int{400}},    // a star that is too long
	{"%e0%80%aa", []int{400}},   // longer
	{"ab%ed%a0%80", []int{400}}, // half of a surrogate pair
	{"ab%ff", []int{400}},
	{"ab%f4%90%80%80", []int{400}}, // beyond Unicode
	{"ab%00", []int{400}},
	{"%00ab", []int{400}},
	{"ab%0d%0aInjected:%201", []int{400}},
	{"ab%0a", []int{400}},
	{"ab%0d", []int{400}},
	{"%0a*", []int{400}},
	{"ab,secret", []int{400}},
	{"secret,ab", []int{400}},
	{"ab%2Csecret", []int{400}},
	{"ab%20", []int{400}},
	{"ab%09secret", []int{400}},
	{"%20exact", []int{400}},
	{"exact%20", []int{400}},
	{"ab%c2%a0", []int{400}},         // no-break space
	{"ab%c2%85", []int{400}},         // next line
	{"ab%e1%9a%80", []int{400}},      // Ogham space
	{"ab%e2%80%a8", []int{400}},      // line separator
	{"ab%e2%80%a9", []int{400}},      // paragraph separator
	{"ab%e3%80%80", []int{400}},      // ideographic space
	{"ab%3Fx", []int{400}},           // ?
	{"ab%23x", []int{400}},           // #
	{"%d0%b0b1", []int{403}},         // Cyrillic a
	{"exact%cc%81", []int{403}},      // combining accent
	{"%ef%bd%81b1", []int{403}},      // fullwidth a
	{"%ef%bb%bfab", []int{403}},      // byte order mark
	{"%e2%80%8bab", []int{403, 400}}, // zero width
	{"EXACT", []int{403}},
	{"Ab1", []int{403}},
	{"..%2Fsecret", []int{403}},
	{"ab%2F..%2F..%2Fsecret", []int{200}}, // a name like any other
	{"ab" + strings.Repeat("x", 253), []int{200}},
	{"ab" + strings.Repeat("x", 254), []int{400}},
	{"ab" + strings.Repeat("x", 253) + "*", []int{200, 400}},
	{"ab" + strings.Repeat("x", 254) + "*", []int{400}},
	{strings.Repeat("x", 10_000), []int{400}},
}

// TestAttackNamesInQuery promises that no spelling of a name in the query of a
// stream gives a client a channel that the route does not allow, and that what is
// no name is refused.
func TestAttackNamesInQuery(t *testing.T) {
	l := loadLab(t, "", narrow)
	cases := append(slices.Clip(hostileNames), []struct {
		raw      string
		statuses []int
	}{
		{"", []int{400}},
		{"ab+x", []int{400}}, // a space
		{"ab;channel=secret", []int{400}},
		{"%u0061b", []int{400}},
		{"ab%", []int{400}},
		{"ab%4", []int{400}},
		{"ab%zz", []int{400}},
		{"ab&Channel=secret", []int{200}},
		{"ab&channel[]=secret&channels=secret&channel%5B0%5D=secret", []int{200}},
		{"ab&channel%00=secret", []int{200, 400}},
		{"ab&channel=secret", []int{403}},
		{"ab&ch%61nnel=secret", []int{403}},
	}...)
	for _, tc := range cases {
		t.Run(fmt.Sprintf("%.40s", tc.raw), func(t *testing.T) {
			l := l.in(t)
			got := l.rawRequest(l.sitePort, "GET", "/events?channel=exact&channel="+tc.raw, "")
			if got.StatusCode != 200 || tc.statuses[0] != 200 {
				got.refused(t, tc.statuses...)
				return
			}
			s, open := l.open("?channel=exact&channel=" + tc.raw)
			defer s.Close()
			for _, name := range open.Channels {
				if !mayHave(name) {
					t.Errorf("it has %q", name)
				}
			}
			l.onlyGets(s, "exact", "secret", "a", "b")
		})
	}
	s, _ := l.open("?channel=exact&channel=ab*")
	for _, name := range narrowNeighbours {
		if strings.Contains(name, "*") || strings.Contains(name, "%00") {
			continue // cannot be published on
		}
		l.publish(url.PathEscape(name), "leaked from "+name)
	}
	l.onlyGets(s, "ab1")
	s.Close()
}

// TestAttackNamesInChanges promises the same of those who change an open stream,
// by a body and by a path.
func TestAttackNamesInChanges(t *testing.T) {
	l := loadLab(t, "", narrow)
	s, _ := l.open("?channel=exact&connection=" + aliceID)
	of := "?connection=" + aliceID
	has := func(t *testing.T, r reply) {
		t.Helper()
		var got changeReply
		r.into(t, &got)
		for _, name := range got.Channels {
			if !mayHave(name) {
				t.Errorf("it has %q", name)
			}
		}
		expectChannels(t, s, strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(r.body), `{"channels":`), "}"))
	}
	for _, tc := range hostileNames {
		name, err := url.PathUnescape(tc.raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, way := range []struct{ name, target, undo, body string }{
			{"body", "/events" + of, "/events" + of, name},
			{"path", "/events/subscribe/" + strings.NewReplacer("?", "%3F", "#", "%23").Replace(tc.raw) + of, "/events/unsubscribe/" + tc.raw + of, ""},
		} {
			t.Run(fmt.Sprintf("%s %.40s", way.name, tc.raw), func(t *testing.T) {
				l := l.in(t)
				post := func(target, word string) reply {
					body := ""
					if way.body != "" {
						body = `{"` + word + `":[` + jsonBytes(way.body) + `]}`
					}
					return l.rawRequest(l.sitePort, "POST", target, body, jsonType)
				}
				if got := post(way.undo, "unsubscribe"); got.StatusCode != 200 || !strings.Contains(got.body, `"exact"`) {
					got.refused(t, 400) // nor does taking away what it has not change anything
				}
				got := post(way.target, "subscribe")
				if got.StatusCode != 200 || tc.statuses[0] != 200 {
					// A long path is too much for some.
					got.refused(t, append(tc.statuses, 431)...)
					return
				}
				has(t, got)
				l.onlyGets(s, "exact", "secret", "a", "b")
				has(t, post(way.undo, "unsubscribe"))
			})
		}
	}
	for _, path := range []string{
		"/subscribe/..%2Fsecret", "/subscribe/../secret", "/subscribe//secret", "/subscribe/%2Fsecret", "/subscribe/./secret",
		"/subscribe/secret/", "/subscribe/secret/../ab", "/subscribe/x/subscribe/ab", "/unsubscribe/../subscribe/secret",
		"/subscribe/", "/subscribe//", "/%73ubscribe/secret", "/subscribe%2Fsecret", "//subscribe/secret", "/subscribe/secret;ab", "/x/subscribe/secret",
	} {
		t.Run(path, func(t *testing.T) {
			l := l.in(t)
			if got := l.rawRequest(l.sitePort, "POST", "/events"+path+of, "", jsonType); got.body != `{"channels":["exact"]}`+"\n" {
				got.refused(t, 400, 403, 404, 415)
			}
			l.onlyGets(s, "exact", "secret", "a", "b")
		})
	}
	s.Close()
}

// jsonBytes writes a string as JSON, with bytes in it that are no UTF-8.
func jsonBytes(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' {
			fmt.Fprintf(&b, `\u%04x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String() + `"`
}

// TestAttackNamesInJSON promises that a body which spells a name in a way of JSON's
// own gets no further.
func TestAttackNamesInJSON(t *testing.T) {
	l := loadLab(t, "", narrow)
	s, _ := l.open("?channel=exact&connection=" + aliceID)
	for _, tc := range []struct {
		body     string
		statuses []int
	}{
		{`{"subscribe":["a\u002a"]}`, []int{403}},
		{`{"subscribe":["\u002a"]}`, []int{403}},
		{`{"subscribe":["ab\u002a\u002a"]}`, []int{400}},
		{`{"subscribe":["ab\ud800"]}`, []int{400}}, // half of a surrogate pair is no character
		{`{"subscribe":["\udc2a"]}`, []int{400, 403}},
		{`{"subscribe":["ab\u0000"]}`, []int{400}},
		{`{"subscribe":["ab\u2028"]}`, []int{400}},
		{`{"subscribe":"secret"}`, []int{400}},
		{`{"subscribe":[["secret"]]}`, []int{400}},
		{`{"subscribe":[null]}`, []int{400}},
		{`{"subscribe":{"0":"secret"}}`, []int{400}},
		{`{"subscribe":["ab"],"subscribe":["secret"]}`, []int{400, 403}},
		{`{"subscribe":["secret"],"Subscribe":["secret"]}`, []int{400, 403}},
		{`{"subscribe":["secret"],"unsubscribe":["secret"]}`, []int{400, 403}},
		{`{"SUBSCRIBE":["secret"]}`, []int{400, 403}},
		{`{"subscribe":["ab"]}` + "\n" + `{"subscribe":["secret"]}`, []int{400}},
		{"\xef\xbb\xbf" + `{"subscribe":["secret"]}`, []int{400, 403}},
		{strings.Repeat("[", 100_000), []int{400}},
		{`{"subscribe":` + strings.Repeat("[", 60_000) + strings.Repeat("]", 60_000) + `}`, []int{400}},
		{`{"given":["secret"]}`, []int{400}},
		{`{"subscribe":["ab"],"given":["secret"],"fixed":1,"user":"bob"}`, []int{400}},
	} {
		t.Run(fmt.Sprintf("%.50s", tc.body), func(t *testing.T) {
			l := l.in(t)
			l.do("POST", l.site+"/events?connection="+aliceID, tc.body, jsonType).refused(t, tc.statuses...)
		})
	}
	for _, name := range []string{"secret", "a", "b", "ab1"} {
		if r := l.publish(name, "leaked"); r.Subscribers != 0 {
			t.Errorf("somebody listens to %q", name)
		}
	}
	s.Close()
}

// TestAttackNamesInPlaceholders promises that what a client puts where the route
// has a placeholder is one name, or the entries of a list, and never a wider
// pattern; and that a user is who he is, not who he looks like.
func TestAttackNamesInPlaceholders(t *testing.T) {
	users := []string{"*", "a,b", "user-*", "alice", " alice", "alice ", "alice\u00a0", "\u2003alice", "Alice", "alice*", "alic*", "bob,", ",bob", "al\u0131ce", "{http.request.header.X-Team}"}
	var accounts strings.Builder
	for _, user := range users {
		fmt.Fprintf(&accounts, "\t\t`%s` $2a$04$DRfddpOqh/uwXBakKZEreu.vtasfb.EA85b6PErPKbRVbCYeWk0h2\n", user)
	}
	l := loadLab(t, "", "basic_auth /events* {\n"+accounts.String()+"\t}\n\tbasic_auth /plain* {\n"+accounts.String()+"\t}\n\tsse /plain* {\n\t\tallow public\n\t}\n\tsse /events* {\n\t\tchannel user-{http.auth.user.id}\n\t\tallow public {http.auth.user.id}-* {http.auth.user.id} \n\t}\n"+
		"\tsse /teams* {\n\t\tallow public team-{http.request.header.X-Team} {http.request.header.X-List} wide-{http.request.header.X-Team}-*\n\t}")
	asks := []string{"user-alice", "user-a", "user-b", "user-bob", "alice-1", "bob-1", "b-1", "a-1", "user-*", "*", "alic*", "alice", "bob", "x", "x-1", "team-x"}

	for _, user := range users {
		t.Run("user "+user, func(t *testing.T) {
			l := l.in(t)
			may := func(name string) bool {
				return name == "user-"+user || strings.HasPrefix(name, user+"-") || name == user
			}
			for _, ask := range asks {
				got := l.do("GET", l.site+"/events?channel=public&channel="+escape(ask), "", basic(user), "X-Team: x", "X-List: *")
				if got.StatusCode == 200 && !may(ask) {
					t.Errorf("he may ask for %q", ask)
				}
			}
			got := l.rawRequest(l.sitePort, "GET", "/events?channel=public", "", basic(user))
			if got.StatusCode != 200 {
				got.refused(t, 403)
				return
			}
			var open openData
			events, _ := parseStream([]byte(got.body))
			decodeStrictly(t, events[0].data, &open)
			for _, name := range open.Channels {
				if name != "public" && !may(name) {
					t.Errorf("he has %q", name)
				}
			}
		})
	}
	alice, _ := l.openAt("/plain?channel=public&connection="+aliceID, basic("alice"))
	for _, user := range users {
		if user != "alice" {
			l.do("POST", l.site+"/plain/unsubscribe/public?connection="+aliceID, "", basic(user)).refused(t, 403, 404)
		}
	}
	l.onlyGets(alice, "public")
	alice.Close()
	for _, tc := range []struct {
		team, list string
		ask        string
		status     int
	}{
		{"*", "", "team-x", 403},
		{"*", "", "team-*", 403},
		{"*", "", "wide-x-1", 403},
		{"x*", "", "team-xy", 403},
		{"x,*", "", "team-y", 403},
		{"x,y", "", "team-y", 200},
		{"x-1-*,y", "", "wide-x-1-2", 403},
		{"", "", "team-", 403},
		{"", "", "wide--1", 403},
		{" ", "", "team-", 403},
		{",,,", "", "team-", 403},
		{"{http.request.header.X-List}", "secret", "team-secret", 403},
		{"", "a*", "ab", 200},
		{"", "a*b", "ab", 403},
		{"", "a**", "ab", 403},
		{"", "a\tb", "b", 403},
		{"", "a;b", "b", 403},
		{"", "a%2Cb", "b", 403},
		{"", "a b", "b", 403},
		{"", `"a","b"`, "b", 403},
		{"", strings.Repeat("a,", 2000) + "secret", "public", 200},
		{"", strings.Repeat(",", 10_000), "secret", 403},
	} {
		t.Run(fmt.Sprintf("%.40s|%.40s|%s", tc.team, tc.list, tc.ask), func(t *testing.T) {
			l := l.in(t)
			got := l.rawRequest(l.sitePort, "GET", "/teams?channel="+escape(tc.ask), "", "X-Team: "+tc.team, "X-List: "+tc.list)
			if got.StatusCode != tc.status {
				t.Errorf("got %d, want %d: %.300s", got.StatusCode, tc.status, got.body)
			}
		})
	}
}
