package caddymodule_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// TestAttackRefusalsAreCounted promises that operators see an attack: whatever is
// refused, at whatever door, is counted once by its reason, and what is answered is
// not counted.
func TestAttackRefusalsAreCounted(t *testing.T) {
	l := loadLab(t, "", basicUsers+`sse /events* {
		allow public ab* {http.auth.user.id}-*
		limits {
			channels 3
		}
	}
	sse /full* {
		allow *
		overload 503
		limits {
			connections 1
		}
	}
	sse_api /api* {
		token token
		allow ab*
		max_body 1KiB
		rate 0.001 5
	}
	sse_api /all* {
		unauthenticated
	}`)
	full, _ := l.openAt("/full?channel=a&connection=" + bobID)
	s, _ := l.open("?channel=public&connection="+aliceID, basic("alice"))
	l.publish("ended", "x")
	l.do("DELETE", l.admin+"/sse/channels/ended", "")
	site, admin := l.site, l.admin+"/sse"
	as, token := basic("alice"), "Authorization: Bearer token"
	long := strings.Repeat("x", 2<<20)
	for _, tc := range []struct {
		name, reason        string
		method, where, body string
		header              []string
	}{
		{"a stream of nothing", "malformed", "GET", site + "/events", "", []string{as}},
		{"a malformed name", "malformed", "GET", site + "/events?channel=a%20b", "", []string{as}},
		{"a malformed query", "malformed", "GET", site + "/events?channel=%zz", "", []string{as}},
		{"a malformed position", "malformed", "GET", site + "/events?channel=public&since=x", "", []string{as}},
		{"a malformed connection", "malformed", "GET", site + "/events?channel=public&connection=x", "", []string{as}},
		{"too many channels", "malformed", "GET", site + "/events?channel=public&channel=ab1&channel=ab2&channel=ab3", "", []string{as}},
		{"another method", "malformed", "PUT", site + "/events", "", []string{as}},
		{"a channel that is not allowed", "forbidden", "GET", site + "/events?channel=secret", "", []string{as}},
		{"HEAD of it", "forbidden", "HEAD", site + "/events?channel=secret", "", []string{as}},
		{"another's connection", "forbidden", "GET", site + "/events?channel=public&connection=" + aliceID, "", []string{basic("bob")}},
		{"another origin", "origin", "GET", site + "/events?channel=public", "", []string{as, "Origin: https://evil.example"}},
		{"a preflight of another origin", "origin", "OPTIONS", site + "/events?channel=public", "", []string{as, "Origin: https://evil.example", "Access-Control-Request-Method: POST"}},
		{"a change of an unknown connection", "unknown", "POST", site + "/events/subscribe/public?connection=" + unknownID, "", []string{as}},
		{"a change of another's", "unknown", "POST", site + "/events/subscribe/public?connection=" + aliceID, "", []string{basic("bob")}},
		{"a change to what is not allowed", "forbidden", "POST", site + "/events/subscribe/secret?connection=" + aliceID, "", []string{as}},
		{"a change of the wrong type", "malformed", "POST", site + "/events?connection=" + aliceID, "x", []string{as}},
		{"a change that is too large", "too_large", "POST", site + "/events?connection=" + aliceID, long[:140_000], []string{as, jsonType}},
		{"a full route", "connections", "GET", site + "/full?channel=a", "", nil},
		{"no token", "unauthenticated", "POST", site + "/api/publish/ab", "x", nil},
		{"a wrong token", "unauthenticated", "POST", site + "/api/publish/ab", "x", []string{"Authorization: Bearer tokem"}},
		{"a publish that is not allowed", "forbidden", "POST", site + "/api/publish/secret", "x", []string{token}},
		{"a publish that is too large", "too_large", "POST", site + "/api/publish/ab", long, []string{token}},
		{"a publish that is compressed", "malformed", "POST", site + "/api/publish/ab", "x", []string{token, "Content-Encoding: gzip"}},
		{"too many at once", "too_large", "POST", site + "/api/publish", `[{"channel":"ab"},{"channel":"ab"},{"channel":"ab"},{"channel":"ab"},{"channel":"ab"},{"channel":"ab"}]`, []string{token, jsonType}},
		{"nothing there", "unknown", "GET", site + "/api/nothing", "", []string{token}},
		{"a list of connections", "forbidden", "GET", site + "/api/connections", "", []string{token}},
		{"a publish of another site's page", "origin", "POST", site + "/all/publish/ab", "x", []string{"Origin: https://evil.example"}},
		{"a channel that has ended", "conflict", "POST", site + "/all/publish/ended", "x", nil},
		{"a malformed line", "malformed", "POST", site + "/all/publish", "{}\n", []string{"Content-Type: application/x-ndjson"}},
		{"a line that is not allowed", "forbidden", "POST", site + "/api/publish", `{"channel":"secret","data":"x"}` + "\n", []string{token, "Content-Type: application/x-ndjson"}},
		{"admin: a malformed name", "malformed", "POST", admin + "/publish/a%20b", "x", nil},
		{"admin: a channel that has ended", "conflict", "POST", admin + "/publish/ended", "x", nil},
		{"admin: too large", "too_large", "POST", admin + "/publish/ab", long, nil},
		{"admin: no such connection", "unknown", "DELETE", admin + "/connections/" + unknownID, "", nil},
		{"admin: another method", "malformed", "PATCH", admin + "/channels", "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := l.in(t)
			want := l.numbers("").Refused
			want[tc.reason]++
			got := l.do(tc.method, tc.where, tc.body, tc.header...)
			if got.StatusCode >= 500 && tc.reason != "connections" {
				t.Errorf("got %d %s", got.StatusCode, got.body)
			}
			if counted := l.numbers("").Refused; !maps.Equal(counted, want) {
				t.Errorf("%d %.200s: counted\n%v, want\n%v", got.StatusCode, got.body, counted, want)
			}
		})
	}
	before := l.numbers("").Refused
	l.publish("public", "not refused")
	expectData(t, s, "not refused")
	l.do("GET", site+"/events?channel=public", "", as)
	l.do("OPTIONS", site+"/events", "", as)
	if after := l.numbers("").Refused; !maps.Equal(before, after) {
		t.Errorf("what was answered was counted: %v, before %v", after, before)
	}
	s.Close()
	full.Close()
}

// TestAttackNonsense promises that no request whatever, at any door, is answered
// with an error of the server, nor with none at all.
func TestAttackNonsense(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\tsse_api /api* {\n\t\tunauthenticated\n\t}")
	s, _ := l.open("?channel=a&connection=" + aliceID)
	texts := []string{"", "a", "*", "%00", "%ff", "%2F", "..", strings.Repeat("x", 1000), "a*b", "%0d%0a", "-1", "18446744073709551616", "1e9", "[]", "{}", "null", "%E2%80%A8"}
	bodies := []string{"", "{", "{}", "[]", "[[]]", "null", "\"", "\x00", "{\"channel\":null}", "[{\"channel\":\"a\"},null]", "channel=a&channel=a", "%zz=%", "{\"data\":1e999999,\"channel\":\"a\"}", `{"channel":"a","retry":-1}`, `{"channel":"a","end":"true"}`, `{"channels":[],"data":"x"}`, `{"channel":"a","data":"\ud800"}`, strings.Repeat(`{"channel":`, 5000)}
	types := []string{"application/json", "application/x-ndjson", "application/x-www-form-urlencoded", "application/json; charset=", ";", "text/event-stream", "multipart/form-data"}
	check := func(got reply, what string) {
		got.clean(t)
		if got.StatusCode >= 500 {
			t.Errorf("%s: %d %.300s", what, got.StatusCode, got.body)
		}
	}
	for _, text := range texts {
		for _, method := range []string{"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "TRACE", "get", "PROPFIND"} {
			for _, path := range []string{
				"/publish/" + text, "/publish?event=" + text, "/publish/a?retry=" + text, "/publish/a?id=" + text, "/publish/a?end=" + text, "/channels/" + text, "/channels?limit=" + text, "/channels?after=" + text,
				"/connections/" + text, "/connections/" + text + "/channels", "/connections?channel=" + text, "/connections?user=" + text, "/health/" + text, "/" + text, "?" + text,
			} {
				check(l.rawRequest(l.sitePort, method, "/api"+path, "x"), method+" "+path)
			}
			for _, path := range []string{"?channel=" + text, "?channel=a&since=" + text, "?channel=a&connection=" + text, "/subscribe/" + text + "?connection=" + aliceID, "/unsubscribe/" + text + "?connection=" + aliceID} {
				if method != "POST" || !strings.Contains(path, aliceID) || text == "" {
					check(l.rawRequest(l.sitePort, method, "/events"+path, "x"), method+" "+path)
				}
			}
		}
	}
	for _, body := range bodies {
		for _, contentType := range types {
			for _, path := range []string{"/api/publish", "/api/connections/channels?user=x", "/api/connections/" + aliceID + "/channels", "/events?connection=" + aliceID} {
				check(l.rawRequest(l.sitePort, "POST", path, body, "Content-Type: "+contentType), fmt.Sprintf("%s %s %.40q", path, contentType, body))
			}
		}
	}
	s.Close()
	// It may have ended the channel; another one works.
	s, _ = l.open("?channel=honest")
	l.publish("honest", "still here")
	expectData(t, s, "still here")
	s.Close()
}
