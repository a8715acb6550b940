package caddymodule_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/caddymodule"
	"github.com/caddy-sse/caddy-sse/sse"
)

// Nobody who does not have the key gets in, whatever is sent.
func FuzzToken(f *testing.F) {
	j := provisioned(f, &caddymodule.JWT{Key: publicPEM(f, testKeys().rsa), Algorithms: []string{"RS256", "PS256"}})
	good := mint(f, "RS256", testKeys().otherRSA, goodClaims, header{"kid": "a"})
	for _, seed := range []string{
		"", "Bearer", "Bearer ", "Basic x", "Bearer " + good, "bearer " + good, "Bearer " + good[:50], "Bearer ..", "Bearer e30.e30.",
		"Bearer " + base64url(`{"alg":"none"}`) + ".e30.", "Bearer " + mint(f, "HS256", []byte("x"), goodClaims, header{"alg": "RS256"}),
		"Bearer " + base64url(`{"alg":"RS256","crit":["b64"],"b64":false}`) + ".e30.AAAA",
		"Bearer " + base64url(`{"alg":"RS256","jwk":{"kty":"RSA","n":"AA","e":"AQAB"},"x5c":["AA"]}`) + ".e30.AAAA",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, authorization string) {
		r := withToken("")
		r.Header["Authorization"] = []string{authorization}
		b, err := j.Read(r)
		if b != nil {
			t.Fatalf("%q is accepted: %+v", authorization, b)
		}
		if err == nil {
			if scheme, _, _ := strings.Cut(authorization, " "); strings.EqualFold(scheme, "Bearer") {
				t.Fatalf("%q counts as none", authorization)
			}
			return
		}
		status, h := caddymodule.ProblemOf(err)
		if status != http.StatusUnauthorized && status != http.StatusBadRequest {
			t.Errorf("got %d: %s", status, err)
		}
		if challenge := h.Get("WWW-Authenticate"); strings.Count(challenge, `"`) != 6 || strings.ContainsFunc(challenge, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("got WWW-Authenticate %q", challenge)
		}
	})
}

// Whatever an issuer signs, what comes out of it is a user and channels as they
// can be.
func FuzzClaims(f *testing.F) {
	j := provisioned(f, &caddymodule.JWT{Key: testSecret, Claim: "a.b", Audience: []string{"sse"}})
	for _, seed := range []string{
		`{"aud":"sse"}`, `{"aud":["sse"],"a.b":["news","x-*"],"sub":"ann","exp":9999999999}`, `{"aud":"sse","a":{"b":["*"]}}`,
		`{"aud":"sse","a":{"b":"news"}}`, `{"aud":"sse","exp":1e999,"nbf":-0.5}`, `{"aud":"sse","sub":"\ud800"}`, `{"aud":["x"]}`, `null`, `[]`, ``, `{"aud":"sse","a":{"b":["a\u0000"]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, claims []byte) {
		b, err := j.Read(withToken(mint(t, "HS256", []byte(testSecret), string(claims), nil)))
		if err != nil {
			if status, _ := caddymodule.ProblemOf(err); status != http.StatusUnauthorized || b != nil {
				t.Errorf("got %d: %s, %v", status, err, b)
			}
			return
		}
		if !strings.Contains(string(claims), "s") || len(b.Channels) > 1000 || len(b.User) > 255 || !utf8.ValidString(b.User) {
			t.Errorf("got %+v", b)
		}
		if slices.ContainsFunc(b.Channels, func(c string) bool { return sse.ValidatePattern(c) != nil }) {
			t.Errorf("got channels %q", b.Channels)
		}
	})
}
