package caddymodule_test

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
)

// endpoint is a route at the path of these tests, with options of one line each.
func endpoint(options ...string) string {
	return "sse /events* {\n\t\t" + strings.Join(options, "\n\t\t") + "\n\t}"
}

// next returns the next frame, be it a keepalive or not.
func (s *rawStream) next() string {
	s.t.Helper()
	limit := time.AfterFunc(patience, s.cancel)
	defer limit.Stop()
	var frame strings.Builder
	for {
		line, err := s.body.ReadString('\n')
		if err != nil {
			s.t.Fatalf("%s: the stream ended (%v) where a frame should be", s.name, err)
		}
		if line == "\n" {
			return frame.String()
		}
		frame.WriteString(line)
	}
}

// TestReloadKeepalive promises that an open stream has the keepalive of the new
// configuration, over every version of HTTP, and its client the new retry.
func TestReloadKeepalive(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.caddyfile("", endpoint("allow news*", "keepalive off")))
	streams, _ := site.openAll(t, newsEvents, nil)
	site.load(t, site.caddyfile("", endpoint("allow news*", "keepalive 100ms")))
	for _, stream := range streams {
		if frame := stream.next(); frame != ": keepalive\n" {
			t.Errorf("%s: got %q, want a keepalive", stream.name, frame)
		}
	}
	site.load(t, site.caddyfile("", endpoint("allow news*", "keepalive 100ms", "retry 7m")))
	for _, stream := range streams {
		frame := stream.next()
		for strings.HasPrefix(frame, ": keepalive") { // from before it was told
			frame = stream.next()
		}
		ms, err := strconv.Atoi(field(frame, "retry"))
		if err != nil || ms < 7*60_000 || !strings.Contains(frame, ": keepalive\n") {
			t.Errorf("%s: got %q, want a keepalive with a retry of 7 minutes or more", stream.name, frame)
		}
	}
	site.load(t, site.caddyfile("", endpoint("allow news*", "keepalive off", "retry 7m")))
	site.publish(t, "news", "", "after")
	expectOnAll(t, streams, "after")
	site.publish(t, "news", "", "and more")
	for _, stream := range streams {
		if frame := stream.next(); field(frame, "data") != "and more" {
			t.Errorf("%s: got %q without keepalives", stream.name, frame)
		}
	}
}

// TestReloadMaxAge promises that an open stream ends at the greatest age of the
// new configuration, over every version of HTTP.
func TestReloadMaxAge(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.caddyfile("", endpoint("allow news*", "keepalive off")))
	streams, _ := site.openAll(t, newsEvents, nil)
	site.load(t, site.caddyfile("", endpoint("allow news*", "keepalive off", "max_age 1s")))
	for _, stream := range streams {
		stream.expectClose("expired")
	}
}

// TestReloadStricter promises that a reload ends the streams that have what is no
// longer allowed, and no others, over every version of HTTP, and that nothing is
// lost to a client that comes back.
func TestReloadStricter(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.caddyfile("", endpoint("allow news* other")))
	stay, _ := site.openAll(t, "/events?channel=news", nil)
	end, _ := site.openAll(t, "/events?channel=news&channel=other", nil)
	site.publish(t, "news", "", "one")
	expectOnAll(t, append(stay, end...), "one")
	site.load(t, site.caddyfile("", endpoint("allow news*")))
	for _, stream := range end {
		stream.expectClose("expired")
	}
	site.awaitStreams(t, len(stay))
	site.publish(t, "news", "", "two")
	expectOnAll(t, stay, "two")
	again, opens := site.openAll(t, newsEvents, http.Header{"Last-Event-Id": {end[0].lastID}})
	for i, o := range opens {
		if o.Resume != "complete" {
			t.Errorf("%s: resume is %q, want complete", again[i].name, o.Resume)
		}
	}
	expectOnAll(t, again, "two")
}

// A visit is a stream of the tests below: what is asked for by whom, and whether
// it ends at the reload.
type visit struct {
	query string
	ends  bool
	lines []string // of the header
}

func stays(query string, lines ...string) visit { return visit{query, false, lines} }
func ends(query string, lines ...string) visit  { return visit{query, true, lines} }

// TestReloadRules promises of each option that says who may have what, which of
// the open streams a change of it ends: those that have what they would not get
// any more, or lack what they would get.
func TestReloadRules(t *testing.T) {
	const byHeader, user = "{http.request.header.X-Channels}", "{http.request.header.X-User}"
	token := bearing(hs256(t, fmt.Sprintf(`{"sub":"alice","channels":["team","team-*"],"exp":%d}`, in(time.Hour))))
	otherKey := strings.Replace(jwtOption(), testSecret, "another "+testSecret, 1)
	for _, tc := range []struct {
		name          string
		before, after []string
		visits        []visit
	}{
		{"allow wider", []string{"allow a b*"}, []string{"allow a b* c"}, []visit{stays("channel=a"), stays("channel=b*&channel=a")}},
		{"allow in other words", []string{"allow a b*"}, []string{"allow b* a"}, []visit{stays("channel=a"), stays("channel=b*")}},
		{"allow narrower", []string{"allow a b*"}, []string{"allow a b1"}, []visit{stays("channel=a&channel=b1"), ends("channel=b*"), ends("channel=a&channel=b2")}},
		{"allow gone", []string{"allow a", "channel b"}, []string{"channel b"}, []visit{stays(""), ends("channel=a")}},
		{"channel gained", []string{"allow a b"}, []string{"allow a b", "channel b"}, []visit{ends("channel=a"), stays("channel=a&channel=b")}},
		{"channel lost", []string{"allow a", "channel b"}, []string{"allow a"}, []visit{ends(""), ends("channel=a")}},
		{"channel lost to allow", []string{"allow a", "channel b"}, []string{"allow a b"}, []visit{stays(""), stays("channel=a")}},
		{
			"placeholders that stay",
			[]string{"allow old " + byHeader, "channel user-" + user},
			[]string{"allow new " + byHeader, "channel user-" + user},
			[]visit{
				stays("channel=a&channel=b", "X-Channels: a,b", "X-User: alice"),
				stays("channel=a", "X-Channels: a"),
				ends("channel=old", "X-Channels: a", "X-User: alice"),
				stays("channel=new", "X-Channels: new"),
			},
		},
		{
			"a placeholder that changed",
			[]string{"allow x " + byHeader},
			[]string{"allow x my-" + byHeader},
			[]visit{ends("channel=a", "X-Channels: a"), ends("channel=my-a", "X-Channels: a,my-a"), stays("channel=x", "X-Channels: a")},
		},
		{
			"a placeholder that is new in allow",
			[]string{"allow x"},
			[]string{"allow x " + byHeader},
			[]visit{stays("channel=x", "X-Channels: a")},
		},
		{
			"a placeholder that is new in channel",
			[]string{"allow x"},
			[]string{"allow x", "channel user-" + user},
			[]visit{ends("channel=x", "X-User: alice"), ends("channel=x")},
		},
		{
			"a placeholder of channel that went",
			[]string{"allow x", "channel user-" + user},
			[]string{"allow x"},
			[]visit{ends("channel=x", "X-User: alice"), stays("channel=x")},
		},
		{"user", []string{"allow x"}, []string{"allow x", "user " + user}, []visit{ends("channel=x")}},
		{
			"allow beside jwt",
			[]string{"allow x y", jwtOption()},
			[]string{"allow x", jwtOption()},
			[]visit{stays("channel=x&channel=team&channel=team-*", token), ends("channel=y", token), ends("channel=y"), stays("channel=x")},
		},
		{
			"the key of jwt",
			[]string{"allow x", jwtOption()},
			[]string{"allow x", otherKey},
			[]visit{ends("channel=team", token), ends("channel=x", token), stays("channel=x")},
		},
		{
			"what jwt looks at",
			[]string{"allow x", jwtOption()},
			[]string{"allow x", jwtOption("leeway 5s")},
			[]visit{ends("channel=team", token), stays("channel=x")},
		},
		{"jwt gone", []string{"allow x team", jwtOption()}, []string{"allow x team"}, []visit{ends("channel=team", token), stays("channel=x")}},
		{"jwt new", []string{"allow x"}, []string{"allow x", jwtOption()}, []visit{stays("channel=x", token), stays("channel=x")}},
		{
			"what is no rule",
			[]string{"allow x " + byHeader},
			[]string{
				"allow x " + byHeader, "session 1m", "origins https://app.example.com", "overload 503", "retry 20s",
				"keepalive 20s", "max_age 1h", "limits {\n connections 1\n per_ip 1\n channels 1\n replay 5\n }",
			},
			[]visit{stays("channel=x"), stays("channel=a&channel=b", "X-Channels: a,b")},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			site := newHubSite(t)
			site.load(t, site.caddyfile("", endpoint(tc.before...)))
			var open []*rawStream
			for _, v := range tc.visits {
				header := make(http.Header)
				for _, line := range v.lines {
					name, value, _ := strings.Cut(line, ": ")
					header.Set(name, value)
				}
				stream, _ := openRaw(t, wires[0].client(t), site.url(wires[0], "/events?"+v.query), header)
				stream.name = fmt.Sprint(v.query, v.lines)
				open = append(open, stream)
			}
			site.load(t, site.caddyfile("", endpoint(tc.after...)))
			// What goes on has to go on again after the next change.
			site.load(t, site.caddyfile("", endpoint(allowMore(tc.after)...)))
			site.call(t, http.MethodDelete, "/connections?channel=*", "", "", nil)
			for i, v := range tc.visits {
				open[i].expectClose(map[bool]string{true: "expired", false: "kicked"}[v.ends])
			}
		})
	}
}

// allowMore returns the options with one more channel that may be asked for.
func allowMore(options []string) (more []string) {
	found := false
	for _, option := range options {
		if strings.HasPrefix(option, "allow ") {
			option, found = option+" more", true
		}
		more = append(more, option)
	}
	if !found {
		more = append(more, "allow more")
	}
	return more
}

// TestReloadAssigned promises that a reload takes away nothing that the backend has
// given, and does not miss what it has taken away.
func TestReloadAssigned(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.caddyfile("", endpoint("allow news other", "channel all")))
	stream, first := openRaw(t, wires[0].client(t), site.url(wires[0], newsEvents), nil)
	path := "/connections/" + parseOpen(t, first).Connection + "/channels"
	site.call(t, http.MethodPost, path, "application/json", `{"subscribe":["given"],"unsubscribe":["all"]}`, nil)
	site.load(t, site.caddyfile("", endpoint("allow news", "channel all")))
	site.publish(t, "given", "", "one")
	for _, want := range []string{"hub:channels", ""} {
		if frame := stream.frame(); field(frame, "event") != want {
			t.Errorf("got %q, want %s", frame, want)
		}
	}
}

// TestReloadSamePlace promises that of two handlers in one place, each keeps its
// own streams: those of the first, which alone is reached, are not judged by the
// rules of the second.
func TestReloadSamePlace(t *testing.T) {
	site := newHubSite(t)
	config := func(first, second string) string {
		return site.caddyfile("", "route /events* {\n sse {\n allow news "+first+"\n }\n sse {\n allow "+second+"\n }\n }")
	}
	site.load(t, config("a", "b"))
	streams, _ := site.openAll(t, newsEvents, nil)
	site.load(t, config("c", "d"))
	site.publish(t, "news", "", "after")
	expectOnAll(t, streams, "after")
}

// TestReloadFirstLimit promises that a limit which is new counts the streams that
// are open already, and not one that is replaced.
func TestReloadFirstLimit(t *testing.T) {
	for _, limit := range []string{"connections 2", "per_ip 2", "per_user 2"} {
		t.Run(limit, func(t *testing.T) {
			l := loadLab(t, "", basicUsers+endpoint("allow *"))
			l.open("?channel=a&connection="+aliceID, basic("alice"))
			gone, _ := l.open("?channel=a", basic("alice"))
			l.load("", basicUsers+endpoint("allow *", "limits {", limit, "}"))
			refused, open := l.openAt("/events?channel=a", basic("alice"))
			if open.Connection != "" {
				t.Errorf("there is room for a third stream")
			}
			refused.Close()
			l.open("?channel=a&connection="+aliceID, basic("alice")) // instead of her first
			gone.Close()
			eventually(t, "there is room again", func() bool {
				again, open := l.openAt("/events?channel=a", basic("alice"))
				defer again.Close()
				return open.Connection != ""
			})
		})
	}
}

// TestReloadFails promises that a configuration which fails, be it while its
// servers run already, changes neither the settings of open streams nor what they
// have.
func TestReloadFails(t *testing.T) {
	occupied, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer occupied.Close()
	site := newHubSite(t)
	site.load(t, site.caddyfile("", endpoint("allow news", "keepalive off")))
	streams, _ := site.openAll(t, newsEvents, nil)
	bad := site.caddyfile("", endpoint("allow other", "keepalive 1ms", "max_age 1ms", "retry 1h")) +
		fmt.Sprintf("\nhttp://%s {\n respond 200\n }\n", occupied.Addr())
	for range 8 { // apps start in random order
		if err := caddytest.TryLoad(t, bad); err == nil {
			t.Fatal("the configuration was accepted, so the test shows nothing")
		}
	}
	site.publish(t, "news", "", "after")
	for _, stream := range streams {
		if frame := stream.next(); field(frame, "data") != "after" {
			t.Errorf("%s: got %q, want the event and no keepalive", stream.name, frame)
		}
	}
}

// TestReloadSameRules promises that a reload which changes no rule of a route ends
// none of its streams, whatever else let them have their channels.
func TestReloadSameRules(t *testing.T) {
	l := loadLab(t, "", endpoint("allow news", jwtOption()))
	s, _ := l.open("?channel=news&connection=" + aliceID)
	token := bearing(hs256(t, fmt.Sprintf(`{"channels":["extra"],"exp":%d}`, in(time.Hour))))
	l.change("/events?connection="+aliceID, `{"subscribe":["extra"]}`, []string{"news", "extra"}, token)
	expectChannels(t, s, `["news","extra"]`)
	l.load("", endpoint("allow news", jwtOption(), "keepalive 20s"))
	l.publish("extra", "after")
	expectData(t, s, "after")
}
