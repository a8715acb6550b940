package caddymodule_test

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// nobody is the header of who is not logged in.
const nobody = "Cookie: theme=dark"

// A teamChat is examples/team-chat on other ports, with browsers that come back
// fast.
type teamChat struct {
	*lab
	caddyfile string
	backend   string // host and port
	process   *caddytest.Process
}

// newTeamChat does not run it yet.
func newTeamChat(t *testing.T) *teamChat {
	t.Helper()
	text, err := os.ReadFile("../examples/team-chat/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	s := &teamChat{lab: newLab(t), caddyfile: string(text), backend: fmt.Sprintf("localhost:%d", caddytest.FreePort(t))}
	// The site listens on all addresses, and a browser knows it by this name.
	s.site = fmt.Sprintf("http://localhost:%d", s.sitePort)
	s.replace("http://localhost:8080 {", s.site+" {", 1)
	s.replace("localhost:3000", s.backend, 2)
	s.replace("max_age 10m", "max_age 10m\n\t\t\tretry 100ms", 1)
	t.Setenv("CADDY_ADMIN", strings.TrimPrefix(s.admin, "http://"))
	return s
}

// replace changes the Caddyfile in so many places.
func (s *teamChat) replace(old, by string, places int) {
	s.t.Helper()
	if n := strings.Count(s.caddyfile, old); n != places {
		s.t.Fatalf("the example's Caddyfile has %q %d times, and this test needs %d", old, n, places)
	}
	s.caddyfile = strings.ReplaceAll(s.caddyfile, old, by)
}

func (s *teamChat) run() {
	s.t.Helper()
	s.process = caddytest.Run(s.t, s.caddyfile)
	s.process.WaitServing(s.t, s.admin+"/sse/health")
	s.process.WaitServing(s.t, s.site)
}

// runTeamChat runs all of the example.
func runTeamChat(t *testing.T) *teamChat {
	t.Helper()
	s := newTeamChat(t)
	_, port, _ := strings.Cut(s.backend, ":")
	t.Setenv("PORT", port)
	t.Setenv("HUB", s.admin+"/sse")
	s.run()
	if line := start(t, "node", "../examples/team-chat/backend/server.mjs").line(); !strings.HasSuffix(line, ":"+port) {
		t.Fatalf("the backend says %q", line)
	}
	return s
}

// in is the chat for a subtest.
func (s *teamChat) in(t *testing.T) *teamChat {
	copied := *s
	copied.lab = s.lab.in(t)
	return &copied
}

// post sends a form of names and values, as whom the header says.
func (s *teamChat) post(path, header string, fields ...string) reply {
	s.t.Helper()
	form := make(url.Values)
	for pair := range slices.Chunk(fields, 2) {
		form.Add(pair[0], pair[1])
	}
	return s.do("POST", s.site+path, form.Encode(), "Content-Type: application/x-www-form-urlencoded", header)
}

// login returns the header that makes a request that user's.
func (s *teamChat) login(user, password string) string {
	s.t.Helper()
	answer := s.post("/login", nobody, "user", user, "password", password)
	cookie := answer.Header.Get("Set-Cookie")
	value, attributes, _ := strings.Cut(cookie, "; ")
	if strings.Contains(attributes, "Secure") {
		s.t.Errorf("without TLS, a browser drops the cookie %q", cookie)
	}
	if answer.StatusCode != 204 || len(value) < len("session=")+22 {
		s.t.Fatalf("login as %s: %s, cookie %q: %s", user, answer.Status, cookie, answer.body)
	}
	for _, want := range []string{"Path=/", "HttpOnly", "SameSite=Lax"} {
		if !slices.Contains(strings.Split(attributes, "; "), want) {
			s.t.Errorf("the cookie %q is not %s", cookie, want)
		}
	}
	return "Cookie: " + value
}

// listen opens a stream of what was asked for.
func (s *teamChat) listen(header string, channels ...string) (*ssetest.Stream, openData) {
	s.t.Helper()
	return s.open("?"+url.Values{"channel": channels}.Encode(), header)
}

func (s *teamChat) expectSaid(stream *ssetest.Stream, from, to, text string) {
	s.t.Helper()
	var message struct {
		From, To, Text string
		At             int64
	}
	decodeStrictly(s.t, stream.Expect("say").Data, &message)
	if message.From != from || message.To != to || message.Text != text || message.At == 0 {
		s.t.Errorf("got %+v, want %q from %s to %s", message, text, from, to)
	}
}

// TestTeamChat holds what examples/team-chat promises: its backend, which holds
// no stream, says who may listen to what.
func TestTeamChat(t *testing.T) {
	site := runTeamChat(t)
	for _, tc := range []struct {
		name string
		run  func(*teamChat)
	}{
		{"who may listen to what", chatRights},
		{"messages", chatMessages},
		{"what is refused", chatRefused},
		{"somebody is removed", chatRemoved},
		{"log out", chatLogout},
		{"as the README says", chatReadme},
		{"who leads, in a browser", chatLead},
		{"in a browser", chatBrowser}, // stops Caddy
	} {
		t.Run(tc.name, func(t *testing.T) { tc.run(site.in(t)) })
	}
}

// Each user gets her own channel, and what the backend lists if she asks for it.
// Nobody gets nothing but the backend's problem.
func chatRights(s *teamChat) {
	all := []string{"team", "project-x", "project-y", "project-*", "user-alice", "user-bob", "user-carol", "user-dave", "user-*", "*"}
	for _, tt := range []struct {
		user, password string
		may            []string
	}{
		{"alice", "apple", []string{"team", "project-x", "project-y", "project-*", "user-alice"}},
		{"bob", "banana", []string{"team", "project-x", "user-bob"}},
		{"carol", "cherry", []string{"team", "user-carol"}},
		{"dave", "date", []string{"user-dave"}},
	} {
		me := s.login(tt.user, tt.password)
		own := "user-" + tt.user
		if _, open := s.listen(me); !slices.Equal(open.Channels, []string{own}) {
			s.t.Errorf("%s gets %q without asking, want %s alone", tt.user, open.Channels, own)
		}
		for _, channel := range all {
			if !slices.Contains(tt.may, channel) {
				s.do("GET", s.site+"/events?channel="+channel, "", me).problem(s.t, 403, `"`+channel+`"`)
				continue
			}
			want := slices.Compact([]string{own, channel})
			if _, open := s.listen(me, channel); !slices.Equal(open.Channels, want) {
				s.t.Errorf("%s asks for %s and gets %q, want %q", tt.user, channel, open.Channels, want)
			}
		}
		// One that is refused takes none of the others along.
		s.do("GET", s.site+"/events?channel="+own+"&channel=user-eve", "", me).problem(s.t, 403, "user-eve")
	}
	for _, header := range []string{nobody, "Cookie: session=guess", "Cookie: session=", "Authorization: Basic YWxpY2U6YXBwbGU="} {
		for _, query := range []string{"", "?channel=team", "?channel=user-alice", "?channel=*"} {
			s.do("GET", s.site+"/events"+query, "", header).problem(s.t, 401, "Nobody is logged in")
		}
	}
}

// A message reaches who may hear it, and nobody else.
func chatMessages(s *teamChat) {
	alice, bob, carol := s.login("alice", "apple"), s.login("bob", "banana"), s.login("carol", "cherry")
	ofAlice, _ := s.listen(alice, "team", "project-*")
	ofBob, _ := s.listen(bob, "team", "project-x")
	ofCarol, _ := s.listen(carol, "team")
	for _, message := range []struct {
		from, name, to, text string
		hear                 []*ssetest.Stream
	}{
		{bob, "bob", "user-alice", "Only you & <b>I</b>", []*ssetest.Stream{ofAlice, ofBob}},
		{alice, "alice", "project-y", "Me alone", []*ssetest.Stream{ofAlice}},
		{bob, "bob", "project-x", "日本語", []*ssetest.Stream{ofAlice, ofBob}},
		{carol, "carol", "team", "one\ntwo", []*ssetest.Stream{ofAlice, ofBob, ofCarol}}, // the first that Carol gets
	} {
		if answer := s.post("/say", message.from, "to", message.to, "text", message.text); answer.StatusCode != 204 {
			s.t.Fatalf("%s: %s", answer.Status, answer.body)
		}
		for _, stream := range message.hear {
			s.expectSaid(stream, message.name, message.to, message.text)
		}
	}
}

// What the backend refuses is not published.
func chatRefused(s *teamChat) {
	bob := s.login("bob", "banana")
	before := s.numbers("").Published
	for _, to := range []string{"project-y", "project-*", "user-eve", "user-bob", "user-*", "*", "answer-1", ""} {
		s.post("/say", bob, "to", to, "text", "Hello").problem(s.t, 403, "“"+to+"”")
	}
	s.post("/say", bob, "to", "team", "text", " ").problem(s.t, 400)
	s.post("/say", bob, "to", "team", "text", strings.Repeat("a", 501)).problem(s.t, 400)
	if long := s.post("/say", bob, "to", "team", "text", strings.Repeat("a", 20<<10)); long.StatusCode != 413 {
		s.t.Errorf("20 KiB are answered %s", long.Status)
	}
	s.post("/say", nobody, "to", "team", "text", "Hello").problem(s.t, 401)
	s.post("/members", bob, "user", "bob", "room", "project-y", "member", "true").problem(s.t, 403)
	for _, login := range [][2]string{{"alice", "banana"}, {"alice", ""}, {"eve", ""}, {"", ""}} {
		s.post("/login", nobody, "user", login[0], "password", login[1]).problem(s.t, 401)
	}
	// A page on another port of this host is of the same site, so its requests
	// come with the cookie.
	for _, origin := range []string{"same-site", "cross-site", "none"} {
		s.do("POST", s.site+"/say", "to=team&text=Hello", bob, "Sec-Fetch-Site: "+origin).problem(s.t, 403, "another origin")
	}
	if after := s.numbers("").Published; after != before {
		s.t.Errorf("%d events were published", after-before)
	}
}

// Who leads puts people into projects and out of them. Their pages are told to
// look again, and Caddy's next answer is another.
func chatRemoved(s *teamChat) {
	alice, bob := s.login("alice", "apple"), s.login("bob", "banana")
	stream, _ := s.listen(bob, "project-x")
	s.member(alice, "bob", "project-x", false)
	stream.Expect("changed")
	expectClosed(s.t, stream, "kicked")
	s.do("GET", s.site+"/events?channel=project-x", "", bob).problem(s.t, 403, "project-x")
	s.post("/say", bob, "to", "project-x", "text", "Hello").problem(s.t, 403)
	s.listen(bob, "team")
	s.member(alice, "bob", "project-x", true)
	s.listen(bob, "project-x")
}

// member puts somebody into a project, or out of it.
func (s *teamChat) member(lead, user, room string, member bool) {
	s.t.Helper()
	answer := s.post("/members", lead, "user", user, "room", room, "member", fmt.Sprint(member))
	if answer.StatusCode != 204 {
		s.t.Fatalf("%s: %s", answer.Status, answer.body)
	}
}

// A session that has ended is worth nothing, and the user's pages are told.
func chatLogout(s *teamChat) {
	first, second := s.login("carol", "cherry"), s.login("carol", "cherry")
	stream, _ := s.listen(first, "team")
	answer := s.post("/logout", first)
	if answer.StatusCode != 204 || !strings.HasPrefix(answer.Header.Get("Set-Cookie"), "session=; Path=/; Max-Age=0;") {
		s.t.Fatalf("%s with %q: %s", answer.Status, answer.Header.Get("Set-Cookie"), answer.body)
	}
	stream.Expect("changed")
	expectClosed(s.t, stream, "kicked")
	s.do("GET", s.site+"/events?channel=team", "", first).problem(s.t, 401)
	s.post("/logout", first).problem(s.t, 401)
	s.listen(second, "team") // is another session

	// Where Caddy has TLS, it says so to the backend, whose cookie is then for TLS alone.
	tls := s.do("POST", "http://"+s.backend+"/login", "user=carol&password=cherry", "X-Forwarded-Proto: https")
	if cookie := tls.Header.Get("Set-Cookie"); !strings.HasSuffix(cookie, "; Secure") {
		s.t.Errorf("got the cookie %q", cookie)
	}
}

// What the README tells to type in a shell works.
func chatReadme(s *teamChat) {
	text, err := os.ReadFile("../examples/team-chat/README.md")
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```sh\n")
	commands, _, _ := strings.Cut(rest, "```")
	commands = strings.ReplaceAll(commands, "http://localhost:8080", s.site)
	const stream = "curl -N"
	if strings.Count(commands, "curl ") != 3 || strings.Count(commands, stream) != 1 {
		s.t.Fatalf("the README says %q, want three commands of which the last is a stream", commands)
	}
	commands = strings.Replace(commands, stream, "exec curl --silent -N", 1)
	curl := start(s.t, "sh", "-e", "-c", "cd '"+s.t.TempDir()+"'\n"+commands)
	if open := parseOpen(s.t, curl.frame()); !slices.Equal(open.Channels, []string{"user-bob", "team"}) {
		s.t.Errorf("the stream has %q", open.Channels)
	}
	for {
		if frame := curl.frame(); strings.Contains(frame, `"text":"Lunch?"`) {
			return
		}
	}
}
