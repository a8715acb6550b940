package caddymodule_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestAttackControlPaths promises that who may publish on some channels can reach
// no other by any spelling of a path: neither publish there, nor end it, nor read
// it, nor learn what else there is.
func TestAttackControlPaths(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\tsse_api /api* {\n\t\ttoken token\n\t\tallow ab* exact\n\t}")
	l.publish("secret", "a secret text")
	l.publish("private", "a secret text")
	s, _ := l.open("?channel=secret&channel=a&channel=b&connection=" + aliceID)
	auth := "Authorization: Bearer token"
	names := []string{
		"secret", "ab/../secret", "ab/../../secret", "/secret", "//secret", "./secret", "%73ecret", "ab%2F..%2Fsecret", "ab/%2e%2e/secret", "exact/../secret",
		"secret%00", "secret%2F", "secret/", "secret?", "secret%3F", "secret;", "a*", "*", "%2A", "ab*", "ab,secret", "secret,ab", "%c0%aesecret", "..%2fsecret", "",
	}
	for _, name := range names {
		for _, request := range []struct{ method, path string }{
			{"POST", "/api/publish/" + name},
			{"DELETE", "/api/channels/" + name},
			{"GET", "/api/channels/" + name},
			{"HEAD", "/api/channels/" + name},
			{"DELETE", "/api/connections/" + name},
			{"POST", "/api/connections/" + name + "/channels"},
			{"POST", "/api/" + name + "/../publish/secret"},
			{"POST", "/API/publish/" + name},
			{"POST", "/api/%70ublish/" + name},
		} {
			got := l.rawRequest(l.sitePort, request.method, request.path, "leaked", auth)
			got.clean(t)
			if got.StatusCode >= 500 {
				t.Errorf("%s %s: %d %s", request.method, request.path, got.StatusCode, got.body)
			}
			if strings.Contains(got.body, "a secret text") {
				t.Errorf("%s %s shows %s", request.method, request.path, got.body)
			}
		}
	}
	l.publish("secret", "the next")
	expectData(t, s, "the next")
	s.Close()
}

// TestAttackControlPages promises that who may publish on some channels learns of
// no other while turning the pages of the list.
func TestAttackControlPages(t *testing.T) {
	l := loadLab(t, "", "sse_api /api* {\n\t\ttoken token\n\t\tallow stocks-*\n\t}\n\tsse /events* {\n\t\tallow *\n\t}")
	for _, name := range []string{"answer-17-of-alice", "stocks-1", "stocks-2", "user-alice"} {
		l.publish(name, "x")
	}
	for _, query := range []string{"?limit=1", "?limit=3", "?limit=1&after=stocks-2", "?prefix=user-&limit=1", "?limit=1&prefix=answer-17-of-", "?limit=1000"} {
		got := l.do("GET", l.site+"/api/channels"+query, "", "Authorization: Bearer token")
		if strings.Contains(got.body, "alice") {
			t.Errorf("%s shows %s", query, got.body)
		}
	}
	// And all that it may see, it gets by following the pages.
	var seen []string
	after := ""
	for range 10 {
		var page struct {
			Channels []struct{ Channel string }
			Next     string
		}
		got := l.do("GET", l.site+"/api/channels?limit=1&after="+escape(after), "", "Authorization: Bearer token")
		if err := json.Unmarshal([]byte(got.body), &page); err != nil {
			t.Fatal(err)
		}
		for _, ch := range page.Channels {
			seen = append(seen, ch.Channel)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if strings.Join(seen, " ") != "stocks-1 stocks-2" {
		t.Errorf("it sees %q", seen)
	}
}

// TestAttackControlLeaks promises that a publisher who is confined to some channels
// learns, while he gives and takes them, neither what else a connection gets, nor
// whose it is, nor which connections there are.
func TestAttackControlLeaks(t *testing.T) {
	l := loadLab(t, "", basicUsers+anyChannel+"\n\tsse_api /api* {\n\t\ttoken token\n\t\tallow stocks-*\n\t}")
	s, _ := l.open("?channel=private-of-alice&channel=stocks-*&connection="+aliceID, basic("alice"))
	auth := "Authorization: Bearer token"
	for _, tc := range []struct{ path, body string }{
		{"/connections/" + aliceID + "/channels", `{"subscribe":["stocks-1"]}`},
		{"/connections/" + aliceID + "/channels", `{"unsubscribe":["stocks-1"]}`},
		{"/connections/channels?channel=stocks-1", `{"unsubscribe":["stocks-1"]}`},
		{"/connections/channels?user=alice", `{"unsubscribe":["stocks-1"]}`},
	} {
		got := l.do("POST", l.site+"/api"+tc.path, tc.body, auth, jsonType)
		for _, secret := range []string{"private-of-alice", `connection ` + aliceID} {
			if strings.Contains(got.body, secret) {
				t.Errorf("%s %s shows %s", tc.path, tc.body, got.body)
			}
		}
	}
	// Who may not see connections cannot ask whether somebody listens elsewhere.
	there := l.do("POST", l.site+"/api/connections/channels?channel=private-of-alice", `{"subscribe":["stocks-2"]}`, auth, jsonType)
	nowhere := l.do("POST", l.site+"/api/connections/channels?channel=private-of-bob", `{"subscribe":["stocks-2"]}`, auth, jsonType)
	if there.body != nowhere.body && there.StatusCode == 200 {
		t.Errorf("he learns that somebody listens: %s, and where nobody does %s", there.body, nowhere.body)
	}
	s.Close()
}
