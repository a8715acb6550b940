package caddymodule_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestAttackForgedRequests promises that a page of another site cannot make its
// visitor's browser change a stream, publish, or end anything, with the cookies and
// passwords that the browser adds by itself: not by what a form can send, nor by
// a script.
func TestAttackForgedRequests(t *testing.T) {
	l := loadLab(t, "", basicUsers+"sse /events* {\n\t\tallow *\n\t}\n\tsse_api /api* {\n\t\tunauthenticated\n\t}")
	s, _ := l.open("?channel=public&connection="+aliceID, basic("alice"))
	// What a browser says of where a request comes from.
	var origins [][]string
	for _, origin := range []string{"https://evil.example", "null", "http://127.0.0.1.evil.example", "http://127.0.0.1:1", "http://localhost", "file://", "https://127.0.0.1:" + fmt.Sprint(l.sitePort) + ".evil.example", "chrome-extension://abc"} {
		origins = append(origins, []string{"Origin: " + origin})
		for _, site := range []string{"cross-site", "same-site"} {
			origins = append(origins, []string{"Origin: " + origin, "Sec-Fetch-Site: " + site})
		}
	}
	origins = append(origins, []string{"Sec-Fetch-Site: cross-site"}, []string{"Sec-Fetch-Site: same-site"}, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"},
		[]string{"Origin: https://evil.example", "Origin: " + l.site})
	bodies := []struct{ contentType, body string }{
		{"text/plain", `{"subscribe":["stolen"]}`},
		{"text/plain;charset=UTF-8", `{"subscribe":["stolen"],"x":"="}`},
		{"application/x-www-form-urlencoded", `subscribe=stolen`},
		{"application/x-www-form-urlencoded", `{"subscribe":["stolen"]}`},
		{"multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"subscribe\"\r\n\r\nstolen\r\n--x--\r\n"},
		{"application/json", `{"subscribe":["stolen"]}`},
		{"", `{"subscribe":["stolen"]}`},
	}
	for _, from := range origins {
		t.Run(strings.Join(from, " "), func(t *testing.T) {
			l := l.in(t)
			header := append(slices.Clone(from), basic("alice"), "Cookie: session=1", "Referer: https://evil.example/")
			for _, b := range bodies {
				own := header
				if b.contentType != "" {
					own = append(slices.Clone(header), "Content-Type: "+b.contentType)
				}
				for _, path := range []string{"/events?connection=", "/events/subscribe/stolen?connection=", "/events/unsubscribe/public?connection="} {
					got := l.do("POST", l.site+path+aliceID, b.body, own...)
					got.refused(t, 403, 400)
					if got.Header.Get("Access-Control-Allow-Origin") != "" || got.Header.Get("Access-Control-Allow-Credentials") != "" {
						t.Errorf("%s: the page may read %v", path, got.Header)
					}
				}
				l.do("POST", l.site+"/api/publish/public", b.body, own...).refused(t, 403)
				l.do("POST", l.site+"/api/publish", b.body, own...).refused(t, 403)
				l.do("POST", l.site+"/api/connections/"+aliceID+"/channels", b.body, own...).refused(t, 403)
			}
			l.do("DELETE", l.site+"/api/connections/"+aliceID, "", header...).refused(t, 403)
			l.do("DELETE", l.site+"/api/channels/public", "", header...).refused(t, 403)
			// Nor can it read the stream of its visitor.
			got := l.do("GET", l.site+"/events?channel=public", "", header...)
			got.refused(t, 403, 400)
			preflight := l.do("OPTIONS", l.site+"/events?connection="+aliceID, "", append(header, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type")...)
			for _, name := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Allow-Credentials"} {
				if preflight.Header.Get(name) != "" {
					t.Errorf("the preflight allows %s: %s", name, preflight.Header.Get(name))
				}
			}
		})
	}
	l.onlyGets(s, "public", "stolen")
	// The types that a form can send change nothing, wherever they come from.
	for _, b := range bodies {
		if b.contentType != "application/json" {
			l.do("POST", l.site+"/events?connection="+aliceID, b.body, basic("alice"), "Content-Type: "+b.contentType).refused(t, 415)
		}
	}
	l.onlyGets(s, "public", "stolen")
	s.Close()
}

// TestAttackRebinding promises that a page whose name was made to resolve to this
// machine reaches neither a site that has another name, nor the admin door.
func TestAttackRebinding(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\tsse_api /api* {\n\t\tunauthenticated\n\t}")
	s, _ := l.open("?channel=a&connection=" + aliceID)
	for _, host := range []string{"evil.example", fmt.Sprintf("evil.example:%d", l.sitePort), "127.0.0.1.evil.example", "127.0.0.2", "127.0.0.1@evil.example", "evil.example#127.0.0.1", "[::1]", "0.0.0.0", "2130706433", ""} {
		for _, door := range []struct {
			port int
			path string
		}{{l.sitePort, "/api"}, {l.adminPort, "/sse"}} {
			for _, request := range []struct{ method, path string }{
				{"POST", door.path + "/publish/a"},
				{"DELETE", door.path + "/channels/a"},
				{"DELETE", door.path + "/connections/" + aliceID},
				{"GET", door.path + "/channels/a"},
				{"POST", "/events/subscribe/b?connection=" + aliceID},
			} {
				got := l.rawBytes(door.port, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nOrigin: http://%s\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx", request.method, request.path, host, host))
				// Caddy answers an empty 200 where no site has that name.
				if got.StatusCode == 200 && got.body != "" || got.StatusCode >= 500 {
					t.Errorf("%s %s of %q: %d %q", request.method, request.path, host, got.StatusCode, got.body)
				}
			}
		}
	}
	// An admin door without a name of a page's own is closed to pages, too.
	for _, header := range []string{"Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors"} {
		for _, path := range []string{"/sse/publish/a", "/sse/publish"} {
			got := l.rawRequest(l.adminPort, "POST", path, "x", header, "Content-Type: text/plain")
			if got.StatusCode < 400 || got.StatusCode >= 500 {
				t.Errorf("%s with %s: %d %s", path, header, got.StatusCode, got.body)
			}
		}
	}
	l.onlyGets(s, "a", "b")
	s.Close()
}

// TestAttackOriginIsNotReflected promises that the header which lets a page read an
// answer repeats only an origin that the route names, byte for byte.
func TestAttackOriginIsNotReflected(t *testing.T) {
	l := loadLab(t, "", "sse /events* {\n\t\tallow *\n\t\torigins https://app.example.com https://*.example.org\n\t}")
	for _, origin := range []string{
		"https://app.example.com.evil.example", "https://app.example.com@evil.example", "https://evil.example/https://app.example.com", "https://app.example.com:443", "https://app.example.com/",
		"https://APP.example.com", "https://app.example.com%00.evil.example", "https://app.example.com\t", "https://app.example.com, https://evil.example", "https://evil.example?.example.org",
		"https://evil.example#.example.org", "https://evil.example\\.example.org", "https://evil_example.org", "https://a.example.org:8443", "http://a.example.org", "https://a:b@c.example.org",
		"https://\u00e4.example.org", "https://a%2f.example.org", "https://..example.org.", "javascript://app.example.com", "*", "https://*.example.org", "app.example.com", "//app.example.com",
	} {
		got := l.rawRequest(l.sitePort, "HEAD", "/events?channel=a", "", "Origin: "+origin)
		allowed := got.Header.Get("Access-Control-Allow-Origin")
		switch {
		case allowed == "" && got.StatusCode != 200, strings.TrimSpace(origin) != origin: // the latter is not sent
		default:
			t.Errorf("%q is allowed as %q: %d", origin, allowed, got.StatusCode)
		}
	}
}
