package caddymodule_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/caddymodule"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// TestLimits promises that streams beyond a limit are turned away, that each is
// counted by its reason, and that a stream which ends makes room.
func TestLimits(t *testing.T) {
	l := newLab(t)
	for _, tc := range []struct {
		name, limits, reason string
		first, second, other []string // headers
	}{
		{"connections", "connections 1", "connections", []string{basic("alice")}, []string{basic("bob")}, nil},
		{
			"per_ip", "per_ip 1", "per_ip",
			[]string{basic("alice"), "X-Forwarded-For: 192.0.2.1"},
			[]string{basic("bob"), "X-Forwarded-For: 192.0.2.1"},
			[]string{basic("bob"), "X-Forwarded-For: 192.0.2.2"},
		},
		{
			"per_ip by the network", "per_ip 1", "per_ip",
			[]string{basic("alice"), "X-Forwarded-For: 2001:db8:1:2::1"},
			[]string{basic("bob"), "X-Forwarded-For: 2001:db8:1:2:ffff::9"},
			[]string{basic("bob"), "X-Forwarded-For: 2001:db8:1:3::1"},
		},
		{
			"per_ip in two spellings", "per_ip 1", "per_ip",
			[]string{basic("alice"), "X-Forwarded-For: 192.0.2.1"},
			[]string{basic("bob"), "X-Forwarded-For: ::ffff:192.0.2.1"},
			[]string{basic("bob"), "X-Forwarded-For: ::ffff:192.0.2.2"},
		},
		{"per_user", "per_user 1", "per_user", []string{basic("alice")}, []string{basic("alice")}, []string{basic("bob")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := l.in(t)
			for _, overload := range []string{"retry", "503"} {
				// Another hub each time: numbers live on over a reload.
				hub := strings.ReplaceAll(tc.name, " ", "-") + overload
				l.load("sse "+hub+"\n\tservers {\n\t\ttrusted_proxies static 127.0.0.1/32\n\t}",
					basicUsers+"sse /events* {\n\t\thub "+hub+"\n\t\tallow *\n\t\toverload "+overload+"\n\t\tlimits {\n\t\t\t"+tc.limits+"\n\t\t}\n\t}")
				s, _ := l.open("?channel=a", tc.first...)
				if overload == "503" {
					got := l.do("GET", l.site+"/events?channel=a", "", tc.second...)
					got.problem(t, 503, "limit", strings.Fields(tc.limits)[0])
					if got.Header.Get("Retry-After") == "" {
						t.Errorf("there is no Retry-After")
					}
				} else {
					refused := ssetest.Open(t, l.client, l.site+"/events?channel=a", l.request("GET", l.site, nil, tc.second...).Header)
					expectClosed(t, refused, "busy")
				}
				if tc.other != nil {
					other, _ := l.open("?channel=a", tc.other...)
					other.Close()
				}
				if n := l.numbers("?hub=" + hub).Refused[tc.reason]; n != 1 {
					t.Errorf("%d refusals were counted", n)
				}
				s.Close()
				eventually(t, "the streams have ended", func() bool { return l.numbers("?hub="+hub).Streams == 0 })
				eventually(t, "there is room again", func() bool {
					again, open := l.openAt("/events?channel=a", tc.second...)
					defer again.Close()
					return open.Connection != ""
				})
			}
		})
	}
}

// TestPerIPTrustsNobody promises that a client cannot choose its address, where
// no proxy is trusted.
func TestPerIPTrustsNobody(t *testing.T) {
	l := loadLab(t, "", "sse /events* {\n\t\tallow *\n\t\tlimits {\n\t\t\tper_ip 1\n\t\t}\n\t}")
	s, _ := l.open("?channel=a", "X-Forwarded-For: 192.0.2.1")
	refused := ssetest.Open(t, l.client, l.site+"/events?channel=a", l.request("GET", l.site, nil, "X-Forwarded-For: 192.0.2.2").Header)
	expectClosed(t, refused, "busy")
	s.Close()
}

// TestRate promises 429 with Retry-After beyond the rate, with nothing published,
// for each publisher by itself, and 413 for what can never be within it.
func TestRate(t *testing.T) {
	l := loadLab(t, "", "sse_api /api* {\n\t\ttoken one two\n\t\trate 0.001 3\n\t}")
	publish := func(token, body string) reply {
		return l.do("POST", l.site+"/api/publish", body, "Authorization: Bearer "+token, jsonType)
	}
	event := `{"channel":"a","data":"x"}`
	publish("one", "["+event+","+event+","+event+","+event+"]").problem(t, 413, "3", "fewer")
	if got := publish("one", "["+event+","+event+"]"); got.StatusCode != 200 {
		t.Fatalf("within the burst: %d %s", got.StatusCode, got.body)
	}
	got := publish("one", "["+event+","+event+"]")
	got.problem(t, 429, "try again")
	if after := got.Header.Get("Retry-After"); after != "1000" && after != "999" {
		t.Errorf("Retry-After is %q", after)
	}
	if got := publish("one", event); got.StatusCode != 200 {
		t.Errorf("what is left of the burst: %d %s", got.StatusCode, got.body)
	}
	if got := publish("two", event); got.StatusCode != 200 {
		t.Errorf("another publisher: %d %s", got.StatusCode, got.body)
	}
	n := l.numbers("")
	if n.Position.Seq != 4 || n.Refused["rate"] != 1 || n.Refused["too_large"] != 1 {
		t.Errorf("%d were published, and refused %v", n.Position.Seq, n.Refused)
	}
}

// TestRateOfEnds holds a bug: ending a channel publishes an event, and was not
// counted in the publisher's rate.
func TestRateOfEnds(t *testing.T) {
	l := loadLab(t, "", "sse_api /api* {\n\t\ttoken one\n\t\trate 0.001 3\n\t}")
	for i, want := range []int{200, 200, 200, 429} {
		if got := l.do("DELETE", fmt.Sprintf("%s/api/channels/c%d", l.site, i), "", "Authorization: Bearer one"); got.StatusCode != want {
			t.Errorf("end %d: got %d, want %d", i, got.StatusCode, want)
		}
	}
}

// TestLinesAreSlowedDown promises that lines beyond the rate wait, and that those
// before them are published and answered meanwhile.
func TestLinesAreSlowedDown(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\tsse_api /api* {\n\t\ttoken one\n\t\trate 0.001 2\n\t}")
	s, _ := l.open("?channel=a")
	p := openLines(t, &http.Client{Transport: withHeader{"Authorization: Bearer one"}}, l.site+"/api/publish")
	if err := p.send(envelope("a", "1") + envelope("a", "2") + envelope("a", "3")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r, err := p.next(); err != nil || r.Status != 0 {
			t.Errorf("got %+v (%v), want a receipt", r, err)
		}
	}
	expectData(t, s, "1", "2")
	if n := l.numbers("").Published; n != 2 {
		t.Errorf("%d lines were published, of 2 that may be", n)
	}
	s.Close()
}

// TestOrigins promises which pages may use a route: by default those of the
// site's own origin; else those that are named, with cookies; or any, without.
func TestOrigins(t *testing.T) {
	l := newLab(t)
	own := fmt.Sprintf("http://127.0.0.1:%d", l.sitePort)
	for _, tc := range []struct {
		option, origin string
		fetchSite      string
		status         int
		allowed        bool
		credentials    bool
	}{
		{"", "", "", 200, false, false},
		{"", own, "same-origin", 200, false, false},
		{"", own, "", 200, false, false},
		{"", "", "same-origin", 200, false, false},
		{"", "", "none", 200, false, false},
		{"", "https://evil.example", "cross-site", 403, false, false},
		{"", "https://evil.example", "", 403, false, false},
		{"", "null", "", 403, false, false},
		{"", "", "cross-site", 403, false, false},
		{"", "http://127.0.0.1:1", "same-site", 403, false, false},
		{"https://app.example.com", "https://app.example.com", "cross-site", 200, true, true},
		{"https://app.example.com", "https://app.example.com", "", 200, true, true},
		{"https://app.example.com", "http://app.example.com", "", 403, false, false},
		{"https://app.example.com", "https://app.example.com:8443", "", 403, false, false},
		{"https://app.example.com", "https://app.example.com.evil.example", "", 403, false, false},
		{"https://app.example.com", "https://evil-app.example.com", "", 403, false, false},
		{"https://app.example.com", "null", "", 403, false, false},
		{"https://*.example.com", "https://a.example.com", "", 200, true, true},
		{"https://*.example.com", "https://a.b.example.com", "", 200, true, true},
		{"https://*.example.com", "https://example.com", "", 403, false, false},
		{"https://*.example.com", "https://.example.com", "", 403, false, false},
		{"https://*.example.com", "https://evilexample.com", "", 403, false, false},
		{"https://*.example.com", "https://evil.example/.example.com", "", 403, false, false},
		{"https://*.example.com", "https://a.example.com.evil.example", "", 403, false, false},
		{"https://*.example.com", "https://a.example.com:444", "", 403, false, false},
		{"*", "https://evil.example", "cross-site", 200, true, false},
		{"*", "null", "", 200, true, false},
		{"* https://app.example.com", "https://app.example.com", "", 200, true, true},
	} {
		t.Run(tc.option+" "+tc.origin+" "+tc.fetchSite, func(t *testing.T) {
			l := l.in(t)
			option := ""
			if tc.option != "" {
				option = "origins " + tc.option
			}
			l.load("", "sse /events* {\n\t\tallow *\n\t\t"+option+"\n\t}")
			var header []string
			if tc.allowed && !tc.credentials {
				// Who sends cookies from there acts for a visitor.
				got := l.do("POST", l.site+"/events/subscribe/b?connection="+aliceID, "", "Origin: "+tc.origin, "Cookie: session=1")
				got.problem(t, 403, "cookies")
			}
			if tc.origin != "" {
				header = append(header, "Origin: "+tc.origin)
			}
			if tc.fetchSite != "" {
				header = append(header, "Sec-Fetch-Site: "+tc.fetchSite)
			}
			preflight := append(slices.Clone(header), "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type")
			for _, got := range []reply{
				l.do("HEAD", l.site+"/events?channel=a", "", header...),
				l.do("POST", l.site+"/events?connection="+aliceID, `{"subscribe":["a"]}`, append(header, jsonType)...),
				l.do("OPTIONS", l.site+"/events?connection="+aliceID, "", preflight...),
			} {
				want := tc.status
				switch {
				case want == 200 && got.Request.Method == "POST":
					want = 404 // it is not open
				case want == 200 && got.Request.Method == "OPTIONS":
					want = 204
				}
				if got.StatusCode != want {
					t.Errorf("%s: got %d, want %d: %s", got.Request.Method, got.StatusCode, want, got.body)
				}
				if origin := got.Header.Get("Access-Control-Allow-Origin"); (origin != "") != tc.allowed || (tc.allowed && origin != tc.origin) {
					t.Errorf("%s: the allowed origin is %q", got.Request.Method, origin)
				}
				if credentials := got.Header.Get("Access-Control-Allow-Credentials"); (credentials == "true") != tc.credentials {
					t.Errorf("%s: credentials are allowed: %q", got.Request.Method, credentials)
				}
				if vary := strings.Join(got.Header.Values("Vary"), ", "); !strings.Contains(vary, "Origin") {
					t.Errorf("%s: Vary is %q", got.Request.Method, vary)
				}
				if methods := got.Header.Get("Access-Control-Allow-Methods"); want == 204 && methods != "GET, POST" {
					t.Errorf("the allowed methods are %q", methods)
				}
			}
		})
	}
}

// TestRefusedPublishesSpendNothing holds a bug: of publishes that were refused at the
// same time for the rate, each took something out of the bucket for good, so that a
// publisher who tried again kept himself out.
func TestRefusedPublishesSpendNothing(t *testing.T) {
	if left := caddymodule.SpendTooMuch(3, 8, 20_000); left < 2 || left > 2.9 {
		t.Errorf("%.1f events may be published, where 2 of 3 are left", left)
	}
}
