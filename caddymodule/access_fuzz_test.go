package caddymodule_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/caddymodule"
	"github.com/caddy-sse/caddy-sse/sse"
)

// FuzzChange promises of any body that it is refused with status 400 or read as
// encoding/json reads it.
func FuzzChange(f *testing.F) {
	for _, seed := range []string{
		`{"subscribe":["a","b*"],"unsubscribe":["c"],"since":"earliest"}`, `{"subscribe":["a"],"since":"e.1"}`, `{"since":"e.1-2-1","unsubscribe":["\u0000"]}`,
		"{}", "[]", "null", `{"subscribe":null}`, `{"subscribe":"a"}`, `{"SUBSCRIBE":["a"]}`, `{"subscribe":["a"]}{}`, `{"subscribe":["a"],"x":1}`, `{"subscribe":[["a"]]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		subscribe, unsubscribe, err := caddymodule.ParseChange(body)
		if err != nil {
			if status := caddymodule.ProblemStatus(err); status != 400 {
				t.Errorf("got status %d for %q: %s", status, body, err)
			}
			return
		}
		var want struct{ Subscribe, Unsubscribe []string }
		if err := json.Unmarshal(body, &want); err != nil || !utf8.Valid(body) {
			t.Fatalf("encoding/json refuses %q: %v", body, err)
		}
		if !slices.Equal(subscribe, want.Subscribe) || !slices.Equal(unsubscribe, want.Unsubscribe) {
			t.Errorf("%q is read as %q and %q", body, subscribe, unsubscribe)
		}
	})
}

// FuzzTemplate promises that whatever a client puts into a placeholder, what it
// gets is a name or pattern that begins and ends as the template does, and no
// pattern unless the template is one, or says nothing else.
func FuzzTemplate(f *testing.F) {
	for _, seed := range [][2]string{
		{"user-{user}", "alice,bob"},
		{"user-{id}", "*"},
		{"{id}", "a, b*,"},
		{"a-{x}-b-{y}*", "1,2,3"},
		{"{user}*", "\xff"},
		{"x{id}y", " \x00"},
		{"{id}{id}", "a*b"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, source, value string) {
		const limit = 50
		names, err := caddymodule.Expand(source, value, limit)
		if err != nil {
			return
		}
		before, rest, found := strings.Cut(source, "{")
		if !found {
			return
		}
		after := rest[strings.LastIndex(rest, "}")+1:]
		if len(names) > limit {
			t.Errorf("%q with %q makes %d names", source, value, len(names))
		}
		for _, name := range names {
			if sse.ValidatePattern(name) != nil || !strings.HasPrefix(name, before) || !strings.HasSuffix(name, after) {
				t.Errorf("%q with %q makes %q", source, value, name)
			}
			alone := before == "" && after == "" && strings.Count(source, "{") == 1
			if strings.HasSuffix(name, "*") && !strings.HasSuffix(source, "*") && !alone {
				t.Errorf("%q with %q makes the pattern %q", source, value, name)
			}
		}
	})
}

// FuzzOrigin promises that an origin is allowed only if its scheme and port are
// those of a named one, and its host is the same, or below it where that has a
// wildcard.
func FuzzOrigin(f *testing.F) {
	for _, seed := range [][2]string{
		{"https://app.example.com", "https://app.example.com"},
		{"https://*.example.com:8443", "https://a.b.example.com:8443"},
		{"https://*.example.com", "https://evil.example/.example.com"},
		{"*", "null"},
		{"https://*.example.com", "https://a@b.example.com"},
		{"http://[::1]:3000", "http://[::1]:3000"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, named, origin string) {
		allowed, err := caddymodule.OriginAllowed([]string{named}, origin)
		if err != nil || !allowed || named == origin {
			return
		}
		want, _ := url.Parse(strings.Replace(named, "://*.", "://", 1)) // it was checked
		got, err := url.Parse(origin)
		if err != nil || got.Scheme != want.Scheme || got.Port() != want.Port() || got.User != nil || got.Path != "" || got.RawQuery != "" || got.Fragment != "" ||
			!strings.HasSuffix(got.Hostname(), "."+want.Hostname()) {
			t.Errorf("%q allows %q: %v", named, origin, err)
		}
	})
}
