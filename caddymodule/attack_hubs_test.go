package caddymodule_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// twoHubs is a server with two hubs, each with a route and a door of its own.
const twoHubs = `sse /a* {
		hub a
		allow *
	}
	sse /b* {
		hub b
		allow *
	}
	sse_api /api-a* {
		hub a
		token one
	}
	sse_api /api-b* {
		hub b
		token two
	}`

// TestAttackAcrossHubs promises that two hubs on one server share nothing: neither
// channels of the same name, nor ids of connections and events, nor ends, nor
// sessions, nor tokens.
func TestAttackAcrossHubs(t *testing.T) {
	l := loadLab(t, "sse a\n\tsse b", twoHubs)
	a, _ := l.openAt("/a?channel=same&channel=other*&connection=" + aliceID)
	b, _ := l.openAt("/b?channel=same&channel=other*&connection=" + aliceID)
	publish := func(hub, channel, data string, header ...string) reply {
		return l.do("POST", l.admin+"/sse/publish/"+channel+"?hub="+hub, data, header...)
	}
	// The same id of an event is another event on another hub.
	for _, hub := range []string{"a", "b"} {
		if got := publish(hub, "same", "for "+hub, "Idempotency-Key: 17"); got.StatusCode != 200 || !strings.Contains(got.body, `.1","subscribers":1}`) {
			t.Errorf("hub %s: %d %s", hub, got.StatusCode, got.body)
		}
	}
	expectData(t, a, "for a")
	expectData(t, b, "for b")
	if a.LastEventID() == b.LastEventID() {
		t.Errorf("both hubs have %s", a.LastEventID())
	}

	l.change("/a/subscribe/new?connection="+aliceID, "", []string{"same", "other*", "new"})
	expectChannels(t, a, `["same","other*","new"]`)
	var changed changeReply
	l.do("POST", l.admin+"/sse/connections/"+aliceID+"/channels?hub=a", `{"subscribe":["given"]}`, jsonType).into(t, &changed)
	expectChannels(t, a, `["same","other*","new","given"]`)
	for _, channel := range []string{"new", "given", "other"} {
		publish("a", channel, "only for a")
	}
	expectData(t, a, "only for a", "only for a", "only for a")
	publish("b", "new", "leaked")
	publish("b", "given", "leaked")
	publish("b", "same", "the next of b")
	expectData(t, b, "the next of b")
	publish("a", "same", "the next of a")
	expectData(t, a, "the next of a")

	// A token of one door is none of the other's, nor a hub a parameter of it.
	for _, tc := range []struct {
		path, token string
		status      int
	}{
		{"/api-a/publish/same", "two", 401},
		{"/api-b/publish/same", "one", 401},
		{"/api-a/publish/same?hub=b", "one", 400},
		{"/api-a/../api-b/publish/same", "one", 401},
		{"/api-b/../api-a/publish/same", "two", 401},
		{"/api-a/publish/same", "one two", 401},
		{"/api-a/publish/same", "", 401},
	} {
		got := l.rawRequest(l.sitePort, "POST", tc.path, "leaked", "Authorization: Bearer "+tc.token)
		got.refused(t, tc.status, 400, 404)
	}

	// An end, a kick and a session are those of one hub.
	l.do("DELETE", l.admin+"/sse/channels/same?hub=a", "")
	if got := a.Expect("hub:end").Data; got != `{"channel":"same"}` {
		t.Errorf("got the end %s", got)
	}
	if got := l.do("DELETE", l.admin+"/sse/connections?user=&channel=*&hub=a", ""); got.StatusCode != 200 {
		t.Errorf("the kick was answered %d %s", got.StatusCode, got.body)
	}
	expectClosed(t, a, "kicked")
	publish("b", "same", "b goes on")
	expectData(t, b, "b goes on")
	b.Close()
	eventually(t, "the stream has ended", func() bool { return l.numbers("?hub=b").Streams == 0 })
	l.do("POST", l.site+"/a/subscribe/x?connection="+aliceID, "").refused(t, 404)
	l.do("POST", l.site+"/b/subscribe/x?connection="+aliceID, "").into(t, &changed)
	if slices.Contains(changed.Channels, "given") {
		t.Errorf("what a gave came to b: %q", changed.Channels)
	}
}

// TestAttackForeignPosition promises that a position of one hub is none of another:
// the stream says so by a reset, and gives nothing for it.
func TestAttackForeignPosition(t *testing.T) {
	l := loadLab(t, "sse a\n\tsse b", twoHubs)
	for i := range 5 {
		for _, hub := range []string{"a", "b"} {
			l.do("POST", l.admin+"/sse/publish/same?hub="+hub, fmt.Sprintf("%s%d", hub, i))
		}
	}
	s, _ := l.openAt("/a?channel=same")
	of := s.LastEventID()
	s.Close()
	epoch, _, _ := strings.Cut(of, ".")
	own, _ := l.openAt("/b?channel=same")
	ownEpoch, _, _ := strings.Cut(own.LastEventID(), ".")
	own.Close()
	for _, tc := range []struct{ id, reason string }{
		{of, "epoch"},
		{epoch + ".0", "epoch"},
		{epoch + ".1", "epoch"},
		{epoch + ".18446744073709551615", "epoch"},
		{epoch + ".3-1-2", "unknown"},
		{ownEpoch + ".1000", "unknown"},
		{ownEpoch + ".18446744073709551615", "unknown"},
		{ownEpoch + ".18446744073709551616", "unknown"},
		{ownEpoch + ".-1", "unknown"},
		{ownEpoch + ".+1", "unknown"},
		{ownEpoch + ".01", "unknown"},
		{ownEpoch + ".1e0", "unknown"},
		{ownEpoch, "unknown"},
		{ownEpoch + ".5-18446744073709551615-18446744073709551615", "unknown"},
		{ownEpoch + ".5-0-0", "unknown"},
		{ownEpoch + ".5-1", "unknown"},
		{ownEpoch + ".5-1-6", "unknown"},
		{ownEpoch + ".5-1-1", "unknown"},
		{strings.ToUpper(ownEpoch) + "Z.1", "unknown"},
		{"." + ownEpoch + ".1", "unknown"},
		{strings.Repeat("9", 5000), "unknown"},
	} {
		t.Run(fmt.Sprintf("%.40s", tc.id), func(t *testing.T) {
			l := l.in(t)
			s, open := l.openAt("/b?channel=same", "Last-Event-ID: "+tc.id)
			defer s.Close()
			if open.Resume != "reset" || !slices.Equal(open.Reset, []resetData{{"same", tc.reason}}) {
				t.Errorf("it resumes as %+v, want a reset for %s", open, tc.reason)
			}
			l.do("POST", l.admin+"/sse/publish/same?hub=a", "leaked")
			l.do("POST", l.admin+"/sse/publish/same?hub=b", "the next")
			expectData(t, s, "the next")
		})
	}
}

// TestAttackTwoRoutes promises that of two routes of one hub each gives what it
// allows: a connection that was opened on one gets by the other no more than the
// other allows, whether its stream is open or comes back.
func TestAttackTwoRoutes(t *testing.T) {
	l := loadLab(t, "", strings.ReplaceAll(basicUsers, "/events*", "/wide*")+"sse /wide* {\n\t\tallow *\n\t\tuser {http.request.header.X-Nobody}\n\t}\n\tsse /narrow* {\n\t\tallow public ab*\n\t}")
	id := "connection=" + aliceID
	s, _ := l.openAt("/narrow?channel=public&" + id)
	for _, ask := range []string{`["secret"]`, `["*"]`, `["a*"]`, `["public","secret"]`} {
		l.do("POST", l.site+"/narrow?"+id, `{"subscribe":`+ask+`,"since":"earliest"}`, jsonType).refused(t, 403)
	}
	for _, path := range []string{
		"/narrow/../wide/subscribe/secret", "/narrow/%2e%2e/wide/subscribe/secret", "/narrow//wide/subscribe/secret", "//wide/subscribe/secret", "/WIDE/subscribe/secret",
		"/narrow/subscribe/..%2f..%2fwide%2fsubscribe%2fsecret", "/%77ide/subscribe/secret", "/wide/../narrow/subscribe/secret", "/wide/..%2fnarrow/subscribe/secret",
	} {
		l.rawRequest(l.sitePort, "POST", path+"?"+id, "").refused(t, 401, 403, 400, 404, 415)
	}
	l.onlyGets(s, "public", "secret")
	s.Close()
	eventually(t, "the stream has ended", func() bool { return l.numbers("").Streams == 0 })

	l.publish("secret", "old")
	s, _ = l.openAt("/wide?channel=public&connection="+bobID, basic("bob"))
	l.change("/wide?connection="+bobID, `{"subscribe":["secret","*","ab1"],"since":"earliest"}`, []string{"public", "secret", "*", "ab1"}, basic("bob"))
	expectChannels(t, s, `["public","secret","*","ab1"]`)
	position := s.LastEventID()
	s.Close()
	eventually(t, "the stream has ended", func() bool { return l.numbers("").Streams == 0 })
	l.publish("secret", "missed")
	for _, query := range []string{"", "&since=earliest", "&since=" + position} {
		s, open := l.openAt("/narrow?channel=public&connection=" + bobID + query)
		if !slices.Equal(open.Channels, []string{"public", "ab1"}) {
			t.Errorf("on the narrow route it has %q", open.Channels)
		}
		if query == "&since=earliest" {
			s.Close()
			eventually(t, "the stream has ended", func() bool { return l.numbers("").Streams == 0 })
			continue
		}
		l.onlyGets(s, "ab1", "secret", "other")
		s.Close()
		eventually(t, "the stream has ended", func() bool { return l.numbers("").Streams == 0 })
	}
}
