package caddymodule_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/caddymodule"
	"github.com/caddy-sse/caddy-sse/internal/caddytest"
)

func TestTakeParameter(t *testing.T) {
	for _, tc := range []struct {
		query, rest string
		values      []string
		malformed   bool
	}{
		{"", "", nil, false},
		{"token=x", "", []string{"x"}, false},
		{"a=1&token=x&b=2", "a=1&b=2", []string{"x"}, false},
		{"token=x&a=1", "a=1", []string{"x"}, false},
		{"a=1&token=x", "a=1", []string{"x"}, false},
		{"%74oken=x%2By&token=z", "", []string{"x+y", "z"}, false},
		{"token", "", nil, false},
		{"token=", "", nil, false},
		{"token=%zz", "", nil, true},
		{"a=1;token=x;b=2", "a=1;b=2", nil, true},
		{"tokens=x&atoken=x&Token=x", "tokens=x&atoken=x&Token=x", nil, false},
		{"&a&&%zz=1&;=&", "&a&&%zz=1&;=&", nil, false},
		{"a=token=x", "a=token=x", nil, false},
	} {
		rest, taken := caddymodule.TakeParameter(tc.query, "token")
		if rest != tc.rest || !slices.Equal(taken.Values(), tc.values) || taken.Malformed() != tc.malformed {
			t.Errorf("%s: got %q %q %t, want %q %q %t", tc.query, rest, taken.Values(), taken.Malformed(), tc.rest, tc.values, tc.malformed)
		}
	}
}

func TestCleanURI(t *testing.T) {
	for uri, want := range map[string]string{
		"/events":                         "/events",
		"/events?":                        "/events?",
		"/events?a=1&token=x&b=2":         "/events?a=1&token=REDACTED&b=2",
		"/events?t%6Fken=x;token=y":       "/events?t%6Fken=REDACTED;token=REDACTED",
		"/token=x?token=x?y":              "/token=x?token=REDACTED",
		"https://example.com/?token=x#a?": "https://example.com/?token=REDACTED#a?",
		"/events?tokens=x":                "/events?tokens=x",
	} {
		if got := caddymodule.CleanURI(uri, "token"); got != want {
			t.Errorf("%s: got %s, want %s", uri, got, want)
		}
	}
}

// A loggedSite is a Caddy that logs all it can into files.
type loggedSite struct {
	*lab
	access, all string // the files
}

func newLoggedSite(t *testing.T, from, siteLog, directives string) *loggedSite {
	t.Helper()
	dir := t.TempDir()
	s := &loggedSite{newLab(t), filepath.Join(dir, "access"), filepath.Join(dir, "all")}
	caddytest.Load(t, fmt.Sprintf(`{
	admin off
	skip_install_trust
	log {
		level DEBUG
		output file %s
		format json
	}
}
http://127.0.0.1:%d {
	%s
	%s
	jwt_gate {
		key %q
		from %s
	}
}
`, s.all, s.sitePort, strings.ReplaceAll(siteLog, "ACCESS", "output file "+s.access+"\nformat json"), directives, testSecret, from))
	return s
}

// lines are those of the access log.
func (s *loggedSite) lines() (lines []map[string]any) {
	s.t.Helper()
	text, err := os.ReadFile(s.access)
	if err != nil {
		s.t.Fatal(err)
	}
	for decoder := json.NewDecoder(strings.NewReader(string(text))); ; {
		line := make(map[string]any)
		if err := decoder.Decode(&line); err == io.EOF {
			return lines
		} else if err != nil {
			s.t.Fatal(err)
		}
		lines = append(lines, line)
	}
}

// everything is all that was logged.
func (s *loggedSite) everything() string {
	s.t.Helper()
	var b strings.Builder
	for _, path := range []string{s.access, s.all} {
		text, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			s.t.Fatal(err)
		}
		b.Write(text)
	}
	return b.String()
}

// The line that stands for Caddy's is like it, but for the token.
func TestRedactedLine(t *testing.T) {
	token := mint(t, "HS256", []byte(testSecret), goodClaims, nil)
	for name, tc := range map[string]struct{ siteLog, directives string }{
		"one log":     {"log {\nACCESS\n}", ""},
		"named":       {"log mine {\nACCESS\n}", ""},
		"chosen":      {"log mine {\nACCESS\nno_hostname\n}", "log_name mine"},
		"by hostname": {"log {\nACCESS\nhostnames 127.0.0.1\n}", ""},
		"level":       {"log {\nACCESS\nlevel DEBUG\n}", "log_skip /nothing\nvars log_level WARN"},
		"compressed":  {"log {\nACCESS\n}", "encode {\nminimum_length 1\n}"},
		"recorded":    {"log {\nACCESS\n}", "log_append seen {http.response.body}"},
		"rewritten":   {"log {\nACCESS\n}", "rewrite * /other?{query}&more=1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newLoggedSite(t, "query token", tc.siteLog, tc.directives)
			headers := []string{"Cookie: a=b", "X-Test: 1", "Referer: http://127.0.0.1/page?token=" + token + "&x=1"}
			plain := s.do("POST", s.site+"/events?channel=a&b=%20", "the body", headers[:2]...)
			hidden := s.do("POST", s.site+"/events?channel=a&token="+token+"&b=%20", "the body", headers...)
			if plain.StatusCode != http.StatusOK || !strings.Contains(hidden.body, `"user":"ann"`) {
				t.Fatalf("got %d %s and %d %s", plain.StatusCode, plain.body, hidden.StatusCode, hidden.body)
			}
			lines := s.lines()
			if len(lines) != 2 {
				t.Fatalf("got %d lines, want 2: %v", len(lines), lines)
			}
			request := lines[1]["request"].(map[string]any)
			if got := request["uri"]; got != "/events?channel=a&token=REDACTED&b=%20" {
				t.Errorf("got uri %q", got)
			}
			if got := fmt.Sprint(request["headers"].(map[string]any)["Referer"]); got != "[http://127.0.0.1/page?token=REDACTED&x=1]" {
				t.Errorf("got Referer %s", got)
			}
			if lines[1]["bytes_read"] != 8.0 || lines[1]["user_id"] != "ann" || lines[1]["status"] != 200.0 || lines[1]["size"] == 0.0 {
				t.Errorf("got %v", lines[1])
			}
			if got := fmt.Sprint(lines[1]["sse"]); got != "map[user:ann]" {
				t.Errorf("got the field sse %s", got)
			}
			delete(request["headers"].(map[string]any), "Referer")
			for _, line := range lines { // what may differ
				delete(line, "seen")
				delete(line["request"].(map[string]any), "uri")
				delete(line["request"].(map[string]any), "remote_port")
				delete(line["request"].(map[string]any)["headers"].(map[string]any), "Content-Length")
				maps.DeleteFunc(line["resp_headers"].(map[string]any), func(name string, _ any) bool { return name == "Content-Length" })
				for _, name := range []string{"ts", "duration", "size", "user_id", "sse"} {
					if _, ok := line[name]; !ok {
						t.Errorf("%s is missing in %v", name, line)
					}
					delete(line, name)
				}
			}
			if !reflect.DeepEqual(lines[0], lines[1]) {
				t.Errorf("Caddy writes\n%v\nand we\n%v", lines[0], lines[1])
			}
			if name != "rewritten" { // which logs, at the level DEBUG, before the token is known to be one
				noneOf(t, token, s.everything())
			}
		})
	}
}

// Wherever a token comes from and whatever is wrong with it, it is in no log, no
// header and no body.
func TestTokenIsNowhere(t *testing.T) {
	good := mint(t, "HS256", []byte(testSecret), goodClaims, nil)
	claims := fmt.Sprintf(`{"sub":%q,"iss":%q,"channels":["%s*x"]}`, strings.Repeat("subject", 9), strings.Repeat("issuer", 9), strings.Repeat("channel", 9))
	tokens := []string{
		good, good + "x", good + ".x", good + "%zz", good[:40], mint(t, "HS512", []byte(testSecret), goodClaims, nil),
		mint(t, "HS256", []byte(testSecret), claims, nil), mint(t, "HS256", []byte("other"), goodClaims, nil), strings.Repeat(good, 30),
		mint(t, "HS256", []byte(testSecret), `{"exp":1}`, nil), "é" + good, "%00" + good,
	}
	for from, request := range map[string]func(r *http.Request, token string){
		"header":       func(r *http.Request, token string) { r.Header.Set("Authorization", "Bearer "+token) },
		"cookie place": func(r *http.Request, token string) { r.Header.Set("Cookie", "place="+token) },
		"query place":  func(r *http.Request, token string) { r.URL.RawQuery = "a=b&place=" + token },
		"query twice": func(r *http.Request, token string) {
			r.URL.RawQuery = "twice=" + token + "&tw%69ce=" + token + ";twice=" + token
		},
		"query fail":  func(r *http.Request, token string) { r.URL.RawQuery = "do=fail&fail=" + token },
		"query panic": func(r *http.Request, token string) { r.URL.RawQuery = "do=panic&panic=" + token },
	} {
		t.Run(from, func(t *testing.T) {
			s := newLoggedSite(t, from, "log {\nACCESS\n}", "")
			for _, token := range tokens {
				r := s.request("GET", s.site+"/events", nil)
				request(r, token)
				resp, err := s.once.Do(r)
				if err != nil {
					if from != "query panic" {
						t.Fatalf("%.100s: %s", token, err)
					}
					continue
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				noneOf(t, token, fmt.Sprint(resp.Header)+string(body))
			}
			if lines := s.lines(); len(lines) != len(tokens) {
				t.Errorf("got %d lines in the access log for %d requests", len(lines), len(tokens))
			}
			for _, token := range tokens {
				noneOf(t, token, s.everything())
			}
			noneOf(t, claims, s.everything())
			if !strings.Contains(s.everything(), `"request"`) {
				t.Error("nothing was logged")
			}
		})
	}
}

// Where Caddy writes no line, none is written in its place.
func TestRedactedLineSkipped(t *testing.T) {
	token := mint(t, "HS256", []byte(testSecret), goodClaims, nil)
	for name, tc := range map[string]struct{ siteLog, directives string }{
		"no log":  {"", ""},
		"skipped": {"log {\nACCESS\n}", "log_skip"},
		"level":   {"log {\nACCESS\nlevel ERROR\n}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newLoggedSite(t, "query token", tc.siteLog, tc.directives)
			if got := s.do("GET", s.site+"/?token="+token, ""); !strings.Contains(got.body, "ann") {
				t.Fatalf("got %s", got.body)
			}
			if text := s.everything(); strings.Contains(text, "handled request") || strings.Contains(text, token) {
				t.Errorf("logged %s", text)
			}
		})
	}
}

// What comes behind, and placeholders, do not see the token.
func TestRedactedRequest(t *testing.T) {
	token := mint(t, "HS256", []byte(testSecret), goodClaims, nil)
	s := newLoggedSite(t, "query token", "log {\nACCESS\n}", "log_append seen \"{http.request.uri} {http.request.orig_uri} {http.request.orig_uri.query}\"\nheader >X-Seen {http.request.orig_uri}")
	got := s.do("GET", s.site+"/events?token="+token+"&channel=a", "")
	for _, want := range []string{`"query":"channel=a"`, "/events?channel=a /events?token=REDACTED\\u0026channel=a token=REDACTED\\u0026channel=a /events?token=REDACTED\\u0026channel=a"} {
		if !strings.Contains(got.body, want) {
			t.Errorf("got %s, want %s in it", got.body, want)
		}
	}
	noneOf(t, token, got.body+s.everything())
}
