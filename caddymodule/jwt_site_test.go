package caddymodule_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// jwtOption is the block of the tests' secret, with more options.
func jwtOption(more ...string) string {
	return "jwt {\n\t\t\tkey \"" + testSecret + "\"\n\t\t\t" + strings.Join(more, "\n\t\t\t") + "\n\t\t}"
}

// hs256 mints a token of the tests' secret with claims as JSON.
func hs256(t testing.TB, claims string) string {
	t.Helper()
	return mint(t, "HS256", []byte(testSecret), claims, nil)
}

func bearing(token string) string { return "Authorization: Bearer " + token }

// in returns a time as a claim has it.
func in(d time.Duration) int64 { return time.Now().Add(d).Unix() }

// TestTokenAdds promises that a token's claim adds to what a route allows to
// everybody, that `sub` is who the client is, and what is answered to those who
// have no token, a bad one, or one that names something else.
func TestTokenAdds(t *testing.T) {
	l := loadLab(t, "", "sse /events* {\n\t\tallow public-*\n\t\tchannel user-{http.auth.user.id}\n\t\t"+jwtOption()+"\n\t}")
	alice := hs256(t, fmt.Sprintf(`{"sub":"alice","channels":["stocks-*","team"],"exp":%d}`, in(time.Hour)))
	for _, tc := range []struct {
		name, query string
		header      []string
		status      int
		challenge   string
		parts       []string
	}{
		{"public, without a token", "?channel=public-1", nil, 200, "", nil},
		{"public, with one", "?channel=public-1", []string{bearing(alice)}, 200, "", nil},
		{"what the token names", "?channel=stocks-ACME&channel=team&channel=stocks-A*", []string{bearing(alice)}, 200, "", nil},
		{"in the cookie", "?channel=team", []string{"Cookie: sse_token=" + alice}, 200, "", nil},
		{"her own channel without asking", "", []string{bearing(alice)}, 200, "", nil},
		{"not public, without a token", "?channel=team", nil, 401, `Bearer realm="sse"`, []string{`"team"`, "token"}},
		{"another's", "?channel=user-bob", []string{bearing(alice)}, 403, `Bearer realm="sse", error="insufficient_scope"`, []string{`"user-bob"`}},
		{"wider than the token", "?channel=s*", []string{bearing(alice)}, 403, "insufficient_scope", nil},
		{"everything", "?channel=*", []string{bearing(alice)}, 403, "insufficient_scope", nil},
		{"public, with a bad token", "?channel=public-1", []string{bearing(alice + "x")}, 401, `error="invalid_token"`, nil},
		{"public, with one that expired", "?channel=public-1", []string{bearing(hs256(t, `{"exp":1}`))}, 401, `error="invalid_token"`, []string{"expired"}},
		{"two headers", "?channel=public-1", []string{bearing(alice), bearing(alice)}, 400, `error="invalid_request"`, nil},
		{"somebody else's scheme", "?channel=public-1", []string{basic("alice")}, 200, "", nil},
		{"a user that is no name", "", []string{bearing(hs256(t, `{"sub":"a,b"}`))}, 403, "", nil},
		{"a user that is everybody", "", []string{bearing(hs256(t, `{"sub":"*"}`))}, 403, "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := l.in(t).do("HEAD", l.site+"/events"+tc.query, "", tc.header...)
			if got.StatusCode != tc.status || !strings.Contains(got.Header.Get("WWW-Authenticate"), tc.challenge) {
				t.Errorf("got %d with %q", got.StatusCode, got.Header.Get("WWW-Authenticate"))
			}
			if tc.status >= 400 {
				got := l.in(t).do("GET", l.site+"/events"+tc.query, "", tc.header...)
				got.problem(t, tc.status, tc.parts...)
				if strings.Contains(got.body+fmt.Sprint(got.Header), alice) {
					t.Errorf("the answer has the token in it: %s", got.body)
				}
			}
		})
	}
	s, open := l.open("?channel=team", bearing(alice))
	if want := []string{"user-alice", "team"}; !slices.Equal(open.Channels, want) {
		t.Errorf("alice has %q, want %q", open.Channels, want)
	}
	var page struct{ Connections []struct{ User string } }
	decodeLoosely(t, l.do("GET", l.admin+"/sse/connections", "").body, &page)
	if len(page.Connections) != 1 || page.Connections[0].User != "alice" {
		t.Errorf("the connections are %+v", page)
	}
	s.Close()
}

// TestTokenExpires promises that a stream ends when its token does, that nothing
// comes on it that is published afterwards, and that a client which comes back
// with a new token misses nothing.
func TestTokenExpires(t *testing.T) {
	l := loadLab(t, "", "sse /events* {\n\t\t"+jwtOption()+"\n\t}")
	token := func(life time.Duration) string {
		return bearing(hs256(t, fmt.Sprintf(`{"sub":"alice","channels":["a","b"],"exp":%d}`, in(life))))
	}
	s, _ := l.open("?channel=a&connection="+aliceID, token(2*time.Second))
	l.change("/events/subscribe/b?connection="+aliceID, "", []string{"a", "b"}, token(time.Hour))
	expectChannels(t, s, `["a","b"]`)
	l.publish("a", "before")
	expectData(t, s, "before")
	expectClosed(t, s, "expired")
	l.publish("a", "between")
	l.publish("b", "of what was added")
	l.do("GET", l.site+"/events?channel=a", "", bearing(hs256(t, `{"channels":["a"],"exp":1}`))).problem(t, 401, "expired")

	again, open := l.open("?channel=a&connection="+aliceID, token(time.Hour), "Last-Event-ID: "+s.LastEventID())
	if open.Resume != "complete" || !slices.Equal(open.Channels, []string{"a", "b"}) {
		t.Errorf("came back with %+v", open)
	}
	expectData(t, again, "between", "of what was added")

	// What is added for a shorter time is not had for longer.
	l.change("/events/unsubscribe/b?connection="+aliceID, "", []string{"a"}, token(time.Second))
	l.change("/events/subscribe/b?connection="+aliceID, "", []string{"a", "b"}, token(2*time.Second))
	expectChannels(t, again, `["a"]`)
	expectChannels(t, again, `["a","b"]`)
	expectClosed(t, again, "expired")

	// A token that grants less takes along what it does not grant.
	less := bearing(hs256(t, `{"sub":"alice","channels":["a"]}`))
	l.publish("b", "secret")
	l.publish("a", "open")
	third, open := l.open("?channel=a&connection="+aliceID, less, "Last-Event-ID: "+again.LastEventID())
	if !slices.Equal(open.Channels, []string{"a"}) {
		t.Errorf("came back with %+v", open)
	}
	expectData(t, third, "open")
	third.Close()
}

// TestTokenWithinLeeway promises that a client whose token has just expired gets
// in while clocks may differ, and no longer.
func TestTokenWithinLeeway(t *testing.T) {
	l := loadLab(t, "", "sse /events* {\n\t\t"+jwtOption("leeway 3s")+"\n\t}")
	s, _ := l.open("?channel=a", bearing(hs256(t, fmt.Sprintf(`{"channels":["a"],"exp":%d}`, in(-time.Second)))))
	expectClosed(t, s, "expired")
}

// TestPublishClaim promises that a token's claim says what its bearer may publish
// to, within what the endpoint allows; that pages of other origins cannot use the
// cookie it may be in; and that a stream of lines ends with its token.
func TestPublishClaim(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\tsse_api /api* {\n\t\tallow stocks-* news\n\t\trate 1000 2\n\t\t"+jwtOption("claim publish", "audience publish")+"\n\t}")
	token := func(claims string) string { return bearing(hs256(t, claims)) }
	good := token(`{"aud":"publish","sub":"feed","publish":["stocks-*","private"]}`)
	for _, tc := range []struct {
		name, path, body string
		header           []string
		status           int
		part             string
	}{
		{"allowed", "/publish/stocks-1", "x", []string{good}, 200, ""},
		{"not named by the token", "/publish/news", "x", []string{good}, 403, "news"},
		{"not allowed by the endpoint", "/publish/private", "x", []string{good}, 403, "private"},
		{"one of several", "/publish", `{"channels":["stocks-1","news"]}`, []string{good, jsonType}, 403, "news"},
		{"no token", "/publish/stocks-1", "x", nil, 401, "token"},
		{"a token for listening", "/publish/stocks-1", "x", []string{token(`{"aud":"listen","channels":["stocks-*"]}`)}, 401, "audience"},
		{"a token without the claim", "/publish/stocks-1", "x", []string{token(`{"aud":"publish","channels":["stocks-*"]}`)}, 403, "stocks-1"},
		{"in the cookie, by a page", "/publish/stocks-1", "x", []string{"Cookie: sse_token=" + strings.TrimPrefix(good, "Authorization: Bearer "), "Origin: https://evil.example", "Sec-Fetch-Site: cross-site"}, 403, "other origins"},
		{"many", "/publish", `[{"channel":"stocks-1"},{"channel":"stocks-1"},{"channel":"stocks-1"}]`, []string{good, jsonType}, 413, "fewer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := l.in(t).do("POST", l.site+"/api"+tc.path, tc.body, tc.header...)
			if tc.status == 200 && got.StatusCode == 200 {
				return
			}
			got.problem(t, tc.status, tc.part)
		})
	}
	l.do("GET", l.site+"/api/connections", "", good).problem(t, 403, "all channels")
	l.do("GET", l.site+"/api/channels/news", "", good).problem(t, 403, "news")
	if got := l.do("GET", l.site+"/api/health", "", good); got.StatusCode != 200 {
		t.Errorf("health: %d", got.StatusCode)
	}

	until := token(fmt.Sprintf(`{"aud":"publish","publish":["stocks-*"],"exp":%d}`, in(2*time.Second)))
	p := openLines(t, &http.Client{Transport: withHeader{until}}, l.site+"/api/publish")
	p.receipt(envelope("stocks-1", "in time"))
	eventually(t, "the token has expired, and a line is refused", func() bool {
		if err := p.send(envelope("stocks-1", "later")); err != nil {
			t.Fatal(err)
		}
		r, err := p.next()
		return err == nil && r.Status == 401 && strings.Contains(r.Detail, "expired") && r.Line > 1
	})
	p.expectEnd()
}

// withHeader sends a header line along with every request.
type withHeader struct{ line string }

func (h withHeader) RoundTrip(r *http.Request) (*http.Response, error) {
	name, value, _ := strings.Cut(h.line, ": ")
	r = r.Clone(r.Context())
	r.Header.Set(name, value)
	return http.DefaultTransport.RoundTrip(r)
}

// TestTokenInQuery promises that a token in the query opens a stream and changes
// it, and is in no log of Caddy's or ours, at whatever level.
func TestTokenInQuery(t *testing.T) {
	dir := t.TempDir()
	all, access := filepath.Join(dir, "all"), filepath.Join(dir, "access")
	l := newLab(t)
	config := fmt.Sprintf("{\n\tadmin 127.0.0.1:%d\n\tskip_install_trust\n\tlog {\n\t\tlevel DEBUG\n\t\toutput file %s\n\t}\n}\n", l.adminPort, all) +
		fmt.Sprintf("http://127.0.0.1:%d {\n\tlog {\n\t\toutput file %s\n\t}\n\tsse /events* {\n\t\t%s\n\t}\n\tsse_api /api* {\n\t\t%s\n\t}\n}\n",
			l.sitePort, access, jwtOption("from query access_token"), jwtOption("from query access_token"))
	caddytest.Load(t, config)
	good := hs256(t, `{"sub":"alice","channels":["*"]}`)
	bad := hs256(t, `{"sub":"alice","channels":["*"],"exp":1}`)
	with := func(token string) string { return "&access_token=" + token }
	s, _ := l.open("?channel=a&connection=" + aliceID + with(good))
	l.change("/events/subscribe/b?connection="+aliceID+with(good), "", []string{"a", "b"})
	l.do("POST", l.site+"/api/publish/a?event=x"+with(good), "hello").into(t, new(receipt))
	l.do("GET", l.site+"/events?channel=a"+with(bad), "").problem(t, 401, "expired")
	l.do("GET", l.site+"/events?channel=%zz"+with(good), "").problem(t, 400)
	l.do("POST", l.site+"/api/publish/a?evnt=x"+with(bad), "hello").problem(t, 401)
	l.do("POST", l.site+"/api/publish/a?evnt=x"+with(good), "hello").problem(t, 400, "evnt")
	s.Close()
	eventually(t, "the stream is logged", func() bool {
		text, _ := os.ReadFile(access)
		return strings.Count(string(text), "\n") >= 7
	})
	for _, path := range []string{all, access} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range []string{good, bad} {
			for _, part := range strings.Split(token, ".")[1:] {
				if strings.Contains(string(text), part) {
					t.Errorf("%s has a part of a token in it:\n%s", filepath.Base(path), text)
				}
			}
		}
	}
	text, _ := os.ReadFile(access)
	if !strings.Contains(string(text), "access_token=REDACTED") || !strings.Contains(string(text), `"channels":["a","b"]`) || !strings.Contains(string(text), `"user_id":"alice"`) {
		t.Errorf("the access log is\n%s", text)
	}
}

// TestKeySetIsAway promises that clients are asked to come back while the issuer's
// keys cannot be had, be it with the token on which EventSource would give up for
// good, and that they get in as soon as the keys can be had.
func TestKeySetIsAway(t *testing.T) {
	var away atomic.Bool
	away.Store(true)
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if away.Load() {
			http.Error(w, "away", http.StatusBadGateway)
			return
		}
		_, _ = w.Write(jwkSet(publicJWK("1", testKeys().p256)))
	}))
	defer issuer.Close()
	l := loadLab(t, "", "sse /events* {\n\t\tallow public\n\t\tjwt {\n\t\t\tjwks "+issuer.URL+"\n\t\t}\n\t}\n\tsse_api /api* {\n\t\tjwt {\n\t\t\tjwks "+issuer.URL+"\n\t\t}\n\t}")
	token := bearing(mint(t, "ES256", testKeys().p256, `{"channels":["a"]}`, header{"kid": "1"}))
	busy := ssetest.Open(t, l.client, l.site+"/events?channel=a", l.request("GET", l.site, nil, token).Header)
	expectClosed(t, busy, "busy")
	l.do("POST", l.site+"/api/publish/a", "x", token).problem(t, 503, "keys")
	if s, open := l.open("?channel=public"); open.Connection == "" {
		t.Error("who has no token was turned away")
	} else {
		s.Close()
	}
	away.Store(false)
	eventually(t, "the keys are there", func() bool {
		s, open := l.openAt("/events?channel=a", token)
		defer s.Close()
		return open.Connection != ""
	})
	away.Store(true) // from here on the keys are known
	l.do("POST", l.site+"/api/publish/a", "x", token).into(t, new(receipt))
	if n := l.numbers("").Refused["unavailable"]; n < 2 {
		t.Errorf("%d refusals were counted", n)
	}
}

// TestKeyIsReplaced holds a bug: a key that was replaced, in the file or variable
// that the configuration names, was taken for the same at the reload, as the words
// were the same. Streams that were opened with tokens of the
// old key, which may be stolen, lived on.
func TestKeyIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	write := func(key string) {
		if err := os.WriteFile(path, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	route := "sse /events* {\n\t\tjwt {\n\t\t\tkey_file " + path + "\n\t\t}\n\t}"
	write(testSecret)
	l := loadLab(t, "", route)
	token := bearing(hs256(t, `{"channels":["a"]}`))
	s, _ := l.open("?channel=a", token)
	l.load("grace_period 1s", route) // the same route
	l.publish("a", "still here")
	expectData(t, s, "still here")
	write(testSecret + ", and another")
	l.load("", route)
	expectClosed(t, s, "expired")
	l.do("GET", l.site+"/events?channel=a", "", token).problem(t, 401, "signature")
}
