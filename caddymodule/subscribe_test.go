package caddymodule_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

const anyChannel = "sse /events* {\n\t\tallow *\n\t}"

// TestSubscribeHeader promises the header of an event stream, which `encode`
// does not compress, and that no event is needed for it and the first frame to
// arrive.
func TestSubscribeHeader(t *testing.T) {
	l := loadLab(t, "", "encode\n\t"+anyChannel)
	s, open := l.open("?channel=stocks-ACME&channel=news", "Accept-Encoding: gzip")
	want := map[string]string{
		"Content-Type":      "text/event-stream",
		"Cache-Control":     "no-cache, no-transform",
		"X-Accel-Buffering": "no",
		"Content-Encoding":  "",
		"Content-Length":    "",
	}
	for name, value := range want {
		if got := strings.Join(s.Response.Header.Values(name), " | "); got != value {
			t.Errorf("%s: got %q, want %q", name, got, value)
		}
	}
	if s.Proto != "HTTP/1.1" {
		t.Errorf("got %s", s.Proto)
	}
	if got := open.Channels; !slices.Equal(got, []string{"stocks-ACME", "news"}) {
		t.Errorf("got channels %q", got)
	}
	if open.Resume != "fresh" || open.Reset != nil || len(open.Connection) < 22 {
		t.Errorf("got %+v", open)
	}
	if !strings.HasSuffix(s.LastEventID(), ".0") {
		t.Errorf("got id %q, want the head of an empty record", s.LastEventID())
	}
}

// TestSubscribeHead promises that HEAD answers the header alone, refuses what
// GET would, and leaves no traces.
func TestSubscribeHead(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	got := l.do("HEAD", l.site+"/events?channel=a", "")
	if got.StatusCode != 200 || got.Header.Get("Content-Type") != "text/event-stream" ||
		got.Header.Get("Cache-Control") != "no-cache, no-transform" || got.body != "" {
		t.Errorf("got %d %v %q", got.StatusCode, got.Header, got.body)
	}
	if got := l.do("HEAD", l.site+"/events", ""); got.StatusCode != 400 {
		t.Errorf("without a channel: got %d, want 400", got.StatusCode)
	}
	if n := l.numbers(""); n.Streams != 0 || n.Channels != 0 {
		t.Errorf("HEAD left traces: %+v", n)
	}
}

// TestSubscribeMethods promises 405 with Allow for other methods.
func TestSubscribeMethods(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	for _, method := range []string{"PUT", "DELETE", "PATCH", "QUERY"} {
		got := l.do(method, l.site+"/events?channel=a", "")
		got.problem(t, 405, method)
		if allow := got.Header.Get("Allow"); allow != "GET, HEAD, POST, OPTIONS" {
			t.Errorf("%s: got Allow %q", method, allow)
		}
	}
}

// TestSubscribeBehindRespond promises that the directive needs no `route` to
// come before a response that the site gives to everything else.
func TestSubscribeBehindRespond(t *testing.T) {
	l := loadLab(t, "", "respond \"nothing else\" 404\n\t"+anyChannel+"\n\tsse_api /sse* {\n\t\tunauthenticated\n\t}")
	if got := l.do("HEAD", l.site+"/events?channel=a", ""); got.StatusCode != 200 {
		t.Errorf("sse: got %d %q, want 200", got.StatusCode, got.body)
	}
	if got := l.do("GET", l.site+"/sse/health", ""); got.StatusCode != 200 {
		t.Errorf("sse_api: got %d %q, want 200", got.StatusCode, got.body)
	}
}

// TestSubscribeResume promises what becomes of the position that a client
// presents, wherever it does so: the header wins over the query, and what is
// not a position is an error in the query only. In the cases {1} to {3} are
// the ids of the three events of the channel, {e} is the epoch, {head} the
// newest position.
func TestSubscribeResume(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	const fresh, complete, reset = "fresh", "complete", "reset "
	for i, tc := range []struct {
		name, query, header string
		resume              string // with the reason of a reset
		id                  string // of hub:open
		data                []string
	}{
		{"nothing", "", "", fresh, "{head}", nil},
		{"latest", "&since=latest", "", fresh, "{head}", nil},
		{"latest as last_event_id", "&last_event_id=latest", "", fresh, "{head}", nil},
		{"empty since", "&since=", "", fresh, "{head}", nil},
		{"empty header", "", "-", fresh, "{head}", nil},
		{"earliest", "&since=earliest", "", complete, "{e}.0", []string{"1", "2", "3"}},
		{"since", "&since={1}", "", complete, "{1}", []string{"2", "3"}},
		{"last_event_id", "&last_event_id={2}", "", complete, "{2}", []string{"3"}},
		{"both the same", "&last_event_id={2}&since={2}", "", complete, "{2}", []string{"3"}},
		{"last_event_id empty", "&last_event_id=&since={2}", "", complete, "{2}", []string{"3"}},
		{"since empty", "&last_event_id={2}&since=", "", complete, "{2}", []string{"3"}},
		{"header", "", "{1}", complete, "{1}", []string{"2", "3"}},
		{"before the first", "", "{e}.0", complete, "{e}.0", []string{"1", "2", "3"}},
		{"head", "", "{head}", complete, "{head}", nil},
		{"header beats since", "&since={1}", "{2}", complete, "{2}", []string{"3"}},
		{"header beats last_event_id", "&last_event_id={1}", "{2}", complete, "{2}", []string{"3"}},
		{"header beats earliest", "&since=earliest", "{2}", complete, "{2}", []string{"3"}},
		{"header beats garbage", "&since=garbage", "{2}", complete, "{2}", []string{"3"}},
		{"header beats contradiction", "&since={1}&last_event_id={3}", "{2}", complete, "{2}", []string{"3"}},
		{"empty header leaves it to the query", "&since={2}", "-", complete, "{2}", []string{"3"}},
		{"header of another epoch", "", "zzzzzzzzz.2", reset + "epoch", "{head}", nil},
		{"query of another epoch", "&since=zzzzzzzzz.2", "", reset + "epoch", "{head}", nil},
		{"header ahead of the head", "", "{e}.99999", reset + "unknown", "{head}", nil},
		{"query ahead of the head", "&since={e}.99999", "", reset + "unknown", "{head}", nil},
		{"header garbage", "", "garbage", reset + "unknown", "{head}", nil},
		{"header garbage beats query", "&since={1}", "12345", reset + "unknown", "{head}", nil},
		{"header with a word", "", "earliest", reset + "unknown", "{head}", nil},
		{"header with a leading zero", "", "{e}.01", reset + "unknown", "{head}", nil},
		{"header with a sign", "", "{e}.+1", reset + "unknown", "{head}", nil},
		{"header beyond 64 bits", "", "{e}.99999999999999999999", reset + "unknown", "{head}", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := l.in(t)
			channel := fmt.Sprintf("c%d", i)
			one, two, three := l.publish(channel, "1"), l.publish(channel, "2"), l.publish(channel, "3")
			fill := strings.NewReplacer("{1}", one.ID.String(), "{2}", two.ID.String(), "{3}", three.ID.String(),
				"{head}", three.ID.String(), "{e}", one.ID.Epoch).Replace
			var header []string
			if tc.header != "" {
				header = append(header, "Last-Event-ID: "+strings.TrimPrefix(fill(tc.header), "-"))
			}

			s, open := l.open("?channel="+channel+fill(tc.query), header...)

			wantResume, reason, _ := strings.Cut(tc.resume, " ")
			var wantReset []resetData
			if reason != "" {
				wantReset = []resetData{{channel, reason}}
			}
			if open.Resume != wantResume || !slices.Equal(open.Reset, wantReset) {
				t.Errorf("got %s %v, want %s %v", open.Resume, open.Reset, wantResume, wantReset)
			}
			if got := s.LastEventID(); got != fill(tc.id) {
				t.Errorf("got id %s, want %s", got, fill(tc.id))
			}
			l.publish(channel, "next")
			expectData(t, s, append(tc.data, "next")...)
		})
	}
}

// TestSubscribeRefusals promises 400 for what is malformed and 403 for what is
// not allowed, each with a detail that tells what to mend.
func TestSubscribeRefusals(t *testing.T) {
	l := loadLab(t, "", `sse /events* {
		channel given
		allow ab* exact team-*
		limits {
			channels 3
		}
	}`)
	const uuid = "0a9f0a9f-0a9f-0a9f-0a9f-0a9f0a9f0a9f"
	for _, tc := range []struct {
		name, query string
		status      int
		field       string
		detail      string
	}{
		{"nothing asked for", "", 200, "", ""},
		{"exact", "?channel=exact", 200, "", ""},
		{"given by the route", "?channel=given", 200, "", ""},
		{"by prefix", "?channel=abc", 200, "", ""},
		{"the prefix itself", "?channel=ab", 200, "", ""},
		{"the pattern", "?channel=ab*", 200, "", ""},
		{"a narrower pattern", "?channel=abc*", 200, "", ""},
		{"escaped", "?channel=team-%C3%A9%2Fx", 200, "", ""},
		{"as many as allowed, with the route's own", "?channel=exact&channel=ab", 200, "", ""},
		{"a wider pattern", "?channel=a*", 403, "channel", `"a*"`},
		{"every channel", "?channel=*", 403, "channel", `"*"`},
		{"another", "?channel=other", 403, "channel", `"other"`},
		{"shorter than the prefix", "?channel=a", 403, "channel", `"a"`},
		{"a pattern of an exact one", "?channel=exact*", 403, "channel", `"exact*"`},
		{"longer than an exact one", "?channel=exactly", 403, "channel", `"exactly"`},
		{"another case", "?channel=EXACT", 403, "channel", `"EXACT"`},
		{"one of two", "?channel=exact&channel=other", 403, "channel", `"other"`},
		{"empty", "?channel=", 400, "channel", "empty"},
		{"control character", "?channel=ab%01", 400, "channel", `\x01`},
		{"line feed", "?channel=ab%0Adata:x", 400, "channel", `\n`},
		{"NUL", "?channel=ab%00", 400, "channel", `\x00`},
		{"C1 control character", "?channel=ab%C2%85", 400, "channel", `\u0085`},
		{"space", "?channel=ab+c", 400, "channel", `' '`},
		{"comma", "?channel=ab,cd", 400, "channel", `','`},
		{"question mark", "?channel=ab?", 400, "channel", `'?'`},
		{"hash", "?channel=ab%23", 400, "channel", `'#'`},
		{"star in the middle", "?channel=ab*c", 400, "channel", "last character"},
		{"two stars", "?channel=ab**", 400, "channel", "last character"},
		{"too long", "?channel=" + strings.Repeat("a", 256), 400, "channel", "256"},
		{"longest", "?channel=ab" + strings.Repeat("a", 253), 200, "", ""},
		{"invalid UTF-8", "?channel=ab%ff", 400, "channel", "UTF-8"},
		{"truncated escape", "?channel=ab%2", 400, "", "query"},
		{"semicolon", "?channel=ab;channel=abc", 400, "", "query"},
		{"too many", "?channel=exact&channel=ab&channel=abc&channel=abd", 400, "channel", "3"},
		{"since garbage", "?since=garbage", 400, "since", "earliest"},
		{"last_event_id garbage", "?last_event_id=12", 400, "last_event_id", "latest"},
		{"since with a sign", "?since=abc.-1", 400, "since", "abc.-1"},
		{"contradiction", "?since=abc.1&last_event_id=abc.2", 400, "since", "contradicts"},
		{"since twice", "?since=abc.1&since=abc.2", 400, "since", "contradicts"},
		{"word and position", "?since=earliest&last_event_id=abc.2", 400, "since", "contradicts"},
		{"connection", "?connection=" + uuid, 200, "", ""},
		{"connection too short", "?connection=short", 400, "connection", "22"},
		{"connection empty", "?connection=", 400, "connection", "22"},
		{"connection too long", "?connection=" + strings.Repeat("a", 129), 400, "connection", "128"},
		{"connection with a line feed", "?connection=" + uuid + "%0a", 400, "connection", "letters"},
		{"connection not ASCII", "?connection=" + uuid + "%C3%A9", 400, "connection", "letters"},
		{"connection twice", "?connection=" + uuid + "&connection=" + uuid, 400, "connection", "one id"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := l.in(t)
			got := l.do("HEAD", l.site+"/events"+tc.query, "")
			if got.StatusCode != tc.status {
				t.Errorf("HEAD: got %d, want %d", got.StatusCode, tc.status)
			}
			if tc.status == 200 {
				if got.StatusCode == 200 {
					l.open(tc.query)
				}
				return
			}
			p := l.do("GET", l.site+"/events"+tc.query, "").problem(t, tc.status, tc.detail)
			if p.Field != tc.field {
				t.Errorf("got field %q, want %q", p.Field, tc.field)
			}
		})
	}
}

// TestSubscribeConnection promises that a client's own id comes back in the
// first frame, and that those made by the server differ.
func TestSubscribeConnection(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	const id = "0A9f0a9f-0a9f_0a9f-0a9f-0a9f0a9f0a9f"
	if _, open := l.open("?channel=a&connection=" + id); open.Connection != id {
		t.Errorf("got connection %q, want %q", open.Connection, id)
	}
	_, one := l.open("?channel=a")
	_, two := l.open("?channel=a")
	if one.Connection == two.Connection {
		t.Errorf("two connections are both %q", one.Connection)
	}
}

// TestSubscribePlaceholders promises that the value of a placeholder may be a
// list, that an empty one vanishes, and that no value reaches further than the
// text around the placeholder says.
func TestSubscribePlaceholders(t *testing.T) {
	const user = "sse /events* {\n\t\tchannel user-{http.request.header.X-User}\n\t}"
	const both = "sse /events* {\n\t\tchannel all user-{header.X-User}\n\t\tallow t-{header.X-Team}-* {header.X-Allow}\n\t}"
	const two = "sse /events* {\n\t\tchannel {header.X-Team}-{header.X-User}\n\t}"
	for _, tc := range []struct {
		name, directives, query string
		header                  []string
		status                  int
		want                    string // channels, or a part of the detail
	}{
		{"value", user, "", []string{"X-User: 7"}, 200, "user-7"},
		{"list", user, "", []string{"X-User: a, b"}, 200, "user-a user-b"},
		{"list with holes", user, "", []string{"X-User: ,a,, b ,"}, 200, "user-a user-b"},
		{"list with repetitions", user, "", []string{"X-User: a,a"}, 200, "user-a"},
		{"two headers", user, "", []string{"X-User: a", "X-User: b"}, 200, "user-a user-b"},
		{"absent", user, "", nil, 400, "channel"},
		{"empty", user, "", []string{"X-User: "}, 400, "channel"},
		{"only commas", user, "", []string{"X-User: , ,"}, 400, "channel"},
		{"star", user, "", []string{"X-User: *"}, 403, "*"},
		{"star behind", user, "", []string{"X-User: a*"}, 403, "*"},
		{"star in a list", user, "", []string{"X-User: a, *"}, 403, "*"},
		{"space", user, "", []string{"X-User: a b"}, 403, "' '"},
		{"question mark", user, "", []string{"X-User: a?"}, 403, "'?'"},
		{"invalid UTF-8", user, "", []string{"X-User: a\xff"}, 403, "UTF-8"},
		{"too long", user, "", []string{"X-User: " + strings.Repeat("a", 251)}, 403, "256"},
		{"a placeholder in the value", user, "", []string{"X-User: {env.HOME}"}, 200, "user-{env.HOME}"},
		{"asks for its own", user, "?channel=user-a", []string{"X-User: a"}, 200, "user-a"},
		{"asks for another's", user, "?channel=user-b", []string{"X-User: a"}, 403, "user-b"},
		{"asks for the bare prefix", user, "?channel=user-", []string{"X-User: a"}, 403, "user-"},
		{"asks without a value", user, "?channel=user-a", nil, 403, "user-a"},

		{"absent beside another", both, "", nil, 200, "all"},
		{"allow by value", both, "?channel=t-red-1", []string{"X-Team: red"}, 200, "all t-red-1"},
		{"allow by pattern", both, "?channel=t-red-*", []string{"X-Team: red"}, 200, "all t-red-*"},
		{"allow by list", both, "?channel=t-blue-*", []string{"X-Team: red,blue"}, 200, "all t-blue-*"},
		{"allow not by another value", both, "?channel=t-red-1", []string{"X-Team: re"}, 403, "t-red-1"},
		{"allow not without a value", both, "?channel=t--1", nil, 403, "t--1"},
		{"allow not by star", both, "?channel=t-red-1", []string{"X-Team: *"}, 403, "t-red-1"},
		{"allow by a bare placeholder", both, "?channel=x", []string{"X-Allow: y, x"}, 200, "all x"},
		{"allow by a pattern in a bare placeholder", both, "?channel=x1*", []string{"X-Allow: y, x*"}, 200, "all x1*"},
		{"allow leaves out what is malformed", both, "?channel=x", []string{"X-Allow: a b, x"}, 200, "all x"},

		{"two", two, "", []string{"X-Team: r", "X-User: a"}, 200, "r-a"},
		{"two lists", two, "", []string{"X-Team: r,s", "X-User: a,b"}, 200, "r-a s-a r-b s-b"},
		{"two lists whose product is long", two, "", []string{"X-Team: " + numbers(50), "X-User: " + numbers(50)}, 403, "100"},
		{"two, one absent", two, "", []string{"X-Team: r"}, 400, "channel"},
		{"two, star in the first", two, "", []string{"X-Team: *", "X-User: a"}, 403, "*"},
		{"two, star in the last", two, "", []string{"X-Team: r", "X-User: *"}, 403, "*"},

		{"the query as a value", "sse /events* {\n\t\tchannel q-{http.request.uri.query.q}\n\t}", "?q=a%2Fb", nil, 200, "q-a/b"},
		{"the query as a value, escaped comma", "sse /events* {\n\t\tchannel q-{http.request.uri.query.q}\n\t}", "?q=a%2Cb", nil, 200, "q-a q-b"},
		{"an unknown placeholder", "sse /events* {\n\t\tchannel x-{no.such.placeholder}\n\t}", "", nil, 400, "channel"},
		{"a pattern for everybody", "sse /events* {\n\t\tchannel news-*\n\t}", "?channel=news-1", nil, 200, "news-* news-1"},
		// The contract has `channel <name…>` but `allow <name|prefix*…>`.
		{"star alone as the user", "sse /events* {\n\t\tchannel {header.X-User}\n\t}", "", []string{"X-User: *"}, 403, "*"},
		{"limit", "sse /events* {\n\t\tchannel {header.X-User}\n\t\tlimits {\n\t\t\tchannels 2\n\t\t}\n\t}", "", []string{"X-User: a,b,c"}, 403, "2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := loadLab(t, "", tc.directives)
			if tc.status != 200 {
				l.do("GET", l.site+"/events"+tc.query, "", append(tc.header, "Connection: close")...).problem(t, tc.status, tc.want)
				return
			}
			_, open := l.open(tc.query, tc.header...)
			if got := strings.Join(open.Channels, " "); got != tc.want {
				t.Errorf("got channels %q, want %q", got, tc.want)
			}
		})
	}
}

// numbers returns a list of n numbers.
func numbers(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprint(i))
	}
	return strings.Join(list, ",")
}

// TestSubscribeOverload promises that a client for whom there is no room is
// asked to come back in 5 to 15 seconds, or gets 503 if so configured, and that
// there is room again as soon as another has left.
func TestSubscribeOverload(t *testing.T) {
	for _, overload := range []string{"retry", "503"} {
		t.Run(overload, func(t *testing.T) {
			l := loadLab(t, "", "sse /events* {\n\t\tallow *\n\t\toverload "+overload+"\n\t\tlimits {\n\t\t\tconnections 2\n\t\t}\n\t}")
			first, _ := l.open("?channel=a")
			l.open("?channel=b")
			if overload == "503" {
				got := l.do("GET", l.site+"/events?channel=a", "")
				got.problem(t, 503, "2")
				if got.Header.Get("Retry-After") == "" {
					t.Error("there is no Retry-After")
				}
			} else {
				s := ssetest.Open(t, l.client, l.site+"/events?channel=a", nil)
				expectClosed(t, s, "busy")
				if retry, ok := s.Retry(); !ok || retry < 5*time.Second || retry > 15*time.Second {
					t.Errorf("got retry %v %v", retry, ok)
				}
				if id := s.LastEventID(); id != "" {
					t.Errorf("got id %q, want the client's untouched", id)
				}
			}
			if n := l.publish("a", "").Subscribers; n != 1 {
				t.Errorf("got %d subscribers after a refusal, want 1", n)
			}
			first.Close()
			eventually(t, "the stream is gone", func() bool { return l.numbers("").Streams == 1 })
			l.open("?channel=a")
		})
	}
}

// TestSubscribeLimitIsOfTheRoute promises that a limit counts the streams of
// its own route, also if another is configured in the same words.
func TestSubscribeLimitIsOfTheRoute(t *testing.T) {
	const limited = " {\n\t\tallow *\n\t\tlimits {\n\t\t\tconnections 1\n\t\t}\n\t}\n\t"
	l := loadLab(t, "", "sse /events"+limited+"sse /more"+limited)
	l.open("?channel=a")
	for path, want := range map[string]string{"/events": "hub:close", "/more": "hub:open"} {
		s := ssetest.Open(t, l.client, l.site+path+"?channel=a", nil)
		if m := s.Next(); m.Event != want {
			t.Errorf("%s: got %s %s, want %s", path, m.Event, m.Data, want)
		}
	}
}

// TestSubscribeReplayLimit promises a reset to one who missed more than a
// replay may hold.
func TestSubscribeReplayLimit(t *testing.T) {
	l := loadLab(t, "", "sse /events* {\n\t\tallow *\n\t\tlimits {\n\t\t\treplay 2\n\t\t}\n\t}")
	first := l.publish("a", "1").ID.String()
	l.publish("a", "2")
	l.publish("a", "3")
	if _, open := l.open("?channel=a&since=" + first); open.Resume != "complete" {
		t.Errorf("two missed: got %+v", open)
	}
	head := l.publish("a", "4").ID.String()
	s, open := l.open("?channel=a&channel=b&since=" + first)
	if open.Resume != "reset" || !slices.Equal(open.Reset, []resetData{{"a", "limit"}}) {
		t.Errorf("three missed: got %+v", open)
	}
	l.publish("a", "5")
	expectData(t, s, "5")
	if s.LastEventID() == head {
		t.Errorf("the id stays at %s", head)
	}
}

// TestSubscribeHistory promises what a hub keeps: as many events as configured
// of each channel, and a reset for those who come later.
func TestSubscribeHistory(t *testing.T) {
	l := loadLab(t, "sse {\n\t\thistory 2 1h\n\t}", anyChannel)
	first := l.publish("a", "1").ID.String()
	second := l.publish("a", "2").ID.String()
	l.publish("b", "only")
	l.publish("a", "3")
	l.publish("a", "4")
	s, open := l.open("?channel=a&since=" + second)
	if open.Resume != "complete" {
		t.Errorf("got %+v", open)
	}
	expectData(t, s, "3", "4")
	_, open = l.open("?channel=a&channel=b&since=" + first)
	if open.Resume != "reset" || !slices.Equal(open.Reset, []resetData{{"a", "expired"}}) {
		t.Errorf("got %+v", open)
	}
	s, open = l.open("?channel=a&channel=b&since=earliest")
	if open.Resume != "complete" {
		t.Errorf("earliest: got %+v", open)
	}
	expectData(t, s, "only", "3", "4")
}

// TestSubscribeRetry promises the configured reconnection time and up to half
// of it more.
func TestSubscribeRetry(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\thandle_path /slow/* {\n\t\tsse /events* {\n\t\t\tallow *\n\t\t\tretry 10s\n\t\t}\n\t}")
	for _, tc := range []struct {
		path             string
		least, mostRetry time.Duration
	}{
		{"/events", 3000 * time.Millisecond, 4500 * time.Millisecond},
		{"/slow/events", 10 * time.Second, 15 * time.Second},
	} {
		seen := make(map[time.Duration]bool)
		for range 8 {
			s := ssetest.Open(t, l.client, l.site+tc.path+"?channel=a", nil)
			readOpen(t, s)
			retry, ok := s.Retry()
			if !ok || retry < tc.least || retry > tc.mostRetry {
				t.Errorf("%s: got retry %v %v", tc.path, retry, ok)
			}
			seen[retry] = true
			s.Close()
		}
		if len(seen) < 2 {
			t.Errorf("%s: there is no jitter: %v", tc.path, seen)
		}
	}
}

// TestSubscribeKeepalive promises a comment in silence, with the id of events
// that were not for this client once there are any.
func TestSubscribeKeepalive(t *testing.T) {
	l := loadLab(t, "", "sse /events* {\n\t\tallow *\n\t\tkeepalive 100ms\n\t}")
	s, _ := l.open("?channel=a")
	before := s.LastEventID()
	for range 2 {
		if got := s.NextComment(); got != "keepalive" && got != " keepalive" {
			t.Errorf("got comment %q", got)
		}
	}
	if got := s.LastEventID(); got != before {
		t.Errorf("the id moved from %s to %s without an event", before, got)
	}
	s.ExpectID(l.publish("other", "").ID.String())
	l.publish("a", "mine")
	expectData(t, s, "mine")
}

// TestSubscribeMaxAge promises that a stream ends at its greatest age, with a
// goodbye, and can be resumed without a hole.
func TestSubscribeMaxAge(t *testing.T) {
	l := loadLab(t, "", "sse /events* {\n\t\tallow *\n\t\tmax_age 300ms\n\t}")
	began := time.Now()
	s, _ := l.open("?channel=a")
	l.publish("a", "1")
	expectData(t, s, "1")
	expectClosed(t, s, "expired")
	if age := time.Since(began); age < 270*time.Millisecond {
		t.Errorf("it ended after %v", age)
	}
	id := s.LastEventID()
	l.publish("a", "2")
	s, open := l.open("?channel=a", "Last-Event-ID: "+id)
	if open.Resume != "complete" {
		t.Errorf("got %+v", open)
	}
	expectData(t, s, "2")
}

// TestSubscribeHubs promises that hubs are apart: in their channels and in
// their positions.
func TestSubscribeHubs(t *testing.T) {
	l := loadLab(t, "sse stocks", anyChannel+"\n\tsse /stocks {\n\t\thub stocks\n\t\tallow *\n\t}")
	s, _ := l.open("?channel=a")
	other := ssetest.Open(t, l.client, l.site+"/stocks?channel=a", nil)
	readOpen(t, other)
	var r receipt
	l.do("POST", l.admin+"/sse/publish/a?hub=stocks", "for stocks").into(t, &r)
	if r.Subscribers != 1 {
		t.Errorf("got %d subscribers, want 1", r.Subscribers)
	}
	here := l.publish("a", "for the default")
	expectData(t, s, "for the default")
	expectData(t, other, "for stocks")
	if here.ID.Epoch == r.ID.Epoch || here.ID.Seq != 1 {
		t.Errorf("got positions %s and %s", here.ID, r.ID)
	}
}
