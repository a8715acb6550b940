package caddymodule_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/caddymodule"
)

// An issuer is a server that publishes a set of keys.
type issuer struct {
	*httptest.Server
	answer  atomic.Pointer[http.HandlerFunc]
	fetches atomic.Int64
}

func newIssuer(t *testing.T, keys ...jwk) *issuer {
	t.Helper()
	i := new(issuer)
	i.publish(keys...)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.fetches.Add(1)
		(*i.answer.Load())(w, r)
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) serve(answer http.HandlerFunc) { i.answer.Store(&answer) }

func (i *issuer) publish(keys ...jwk) {
	i.serve(func(w http.ResponseWriter, _ *http.Request) { w.Write(jwkSet(keys...)) })
}

// expectUser checks that the token is accepted.
func expectUser(t *testing.T, j *caddymodule.JWT, token string) {
	t.Helper()
	b, err := j.Read(withToken(token))
	if err != nil || b.User != "ann" {
		t.Errorf("got %v, %v, want ann", b, err)
	}
}

func TestJWKSKeyTypes(t *testing.T) {
	k := testKeys()
	secret := []byte(testSecret)
	set := newIssuer(
		t,
		publicJWK("rsa", k.rsa), publicJWK("rsa-ps", k.rsa).with("alg", "PS256"), publicJWK("p256", k.p256),
		publicJWK("p384", k.p384).with("use", "sig"), publicJWK("p521", k.p521).with("key_ops", []string{"verify"}), publicJWK("ed", k.ed).with("alg", "EdDSA"),
		publicJWK("secret", secret), publicJWK("secret-named", secret).with("alg", "HS256"),
		publicJWK("enc", k.otherRSA).with("use", "enc"), publicJWK("wrap", k.otherRSA).with("key_ops", []string{"wrapKey"}),
		publicJWK("odd-use", k.otherRSA).with("use", "SIG"), publicJWK("lies", k.otherRSA).with("alg", "HS256"),
		jwk{"kid": "future", "kty": "AKP", "pub": "AAAA"}, jwk{"kid": "x448", "kty": "OKP", "crv": "Ed448", "x": "AAAA"},
		publicJWK("weak", k.weakRSA), publicJWK("private", k.otherRSA).with("d", base64url(string(k.otherRSA.D.Bytes()))),
		jwk{"kid": "empty", "kty": "oct", "k": ""},
	)
	with := func(algs ...string) *caddymodule.JWT {
		return provisioned(t, &caddymodule.JWT{JWKS: set.URL, Algorithms: algs})
	}
	byType, named, hmac := with(), with("RS384", "PS256", "ES256"), with("HS256")
	for _, tc := range []struct {
		j       *caddymodule.JWT
		id, alg string
		key     any
		says    string // empty is accepted
	}{
		{byType, "rsa", "RS256", k.rsa, ""},
		{byType, "rsa", "RS384", k.rsa, `signed with RS384, for which its key "rsa" is not`},
		{byType, "rsa", "PS256", k.rsa, `signed with PS256, for which its key "rsa" is not`},
		{byType, "rsa-ps", "PS256", k.rsa, ""},
		{byType, "rsa-ps", "RS256", k.rsa, `for which its key "rsa-ps" is not`},
		{byType, "p256", "ES256", k.p256, ""},
		{byType, "p384", "ES384", k.p384, ""},
		{byType, "p521", "ES512", k.p521, ""},
		{byType, "ed", "EdDSA", k.ed, ""},
		{byType, "ed", "RS256", k.rsa, `for which its key "ed" is not`},
		{byType, "p256", "RS256", k.rsa, `for which its key "p256" is not`},
		{byType, "p384", "RS256", k.rsa, `for which its key "p384" is not`},
		{byType, "secret", "HS256", secret, `signed with "HS256", which is not among`},
		{byType, "secret-named", "HS256", secret, `signed with "HS256", which is not among`},
		{byType, "rsa", "HS256", []byte(publicPEM(t, k.rsa)), `signed with "HS256", which is not among`},
		{byType, "enc", "RS256", k.otherRSA, "not among those that the issuer publishes"},
		{byType, "wrap", "RS256", k.otherRSA, "not among those that the issuer publishes"},
		{byType, "odd-use", "RS256", k.otherRSA, "not among those that the issuer publishes"},
		{byType, "lies", "RS256", k.otherRSA, "not among those that the issuer publishes"},
		{byType, "weak", "RS256", k.weakRSA, "not among those that the issuer publishes"},
		{byType, "private", "RS256", k.otherRSA, "not among those that the issuer publishes"},
		{byType, "RSA", "RS256", k.rsa, "not among those that the issuer publishes"},
		{byType, "rsa", "RS256", k.otherRSA, "signature"},
		{byType, "", "RS256", k.rsa, ""},
		{byType, "", "EdDSA", k.ed, ""},
		{byType, "", "RS256", k.otherRSA, "signature"},
		{byType, "", "RS512", k.rsa, "signed with RS512, for which the issuer publishes no key"},
		{byType, "a\"\r\nX: \u202e" + strings.Repeat("y", 100), "RS256", k.rsa, `the key "a\"\r\nX: \u202e` + strings.Repeat("y", 56) + `"`},
		{named, "rsa", "RS384", k.rsa, ""},
		{named, "rsa", "RS256", k.rsa, `signed with "RS256", which is not among`},
		{named, "rsa", "PS256", k.rsa, ""},
		{named, "rsa-ps", "RS384", k.rsa, `for which its key "rsa-ps" is not`},
		{named, "p256", "ES256", k.p256, ""},
		{named, "p384", "ES384", k.p384, `signed with "ES384", which is not among`},
		{hmac, "secret", "HS256", secret, ""},
		{hmac, "secret-named", "HS256", secret, ""},
		{hmac, "rsa", "HS256", []byte(publicPEM(t, k.rsa)), `for which its key "rsa" is not`},
		{hmac, "empty", "HS256", []byte{}, "not among those that the issuer publishes"},
	} {
		t.Run(tc.id+" "+tc.alg, func(t *testing.T) {
			more := header{"kid": tc.id}
			if tc.id == "" {
				more = nil
			}
			token := mint(t, tc.alg, tc.key, goodClaims, more)
			if tc.says == "" {
				expectUser(t, tc.j, token)
				return
			}
			_, err := tc.j.Read(withToken(token))
			expectRefusal(t, err, http.StatusUnauthorized, tc.says, token)
		})
	}
}

// The number of keys that one token is tried with is bounded.
func TestJWKSManyCandidates(t *testing.T) {
	k := testKeys()
	keys := slices.Repeat([]jwk{publicJWK("", k.otherRSA)}, 9)
	early, late := newIssuer(t, append(keys, publicJWK("", k.rsa))...), newIssuer(t, append(keys, publicJWK("", k.otherRSA), publicJWK("", k.rsa))...)
	token := mint(t, "RS256", k.rsa, goodClaims, nil)
	expectUser(t, provisioned(t, &caddymodule.JWT{JWKS: early.URL}), token)
	_, err := provisioned(t, &caddymodule.JWT{JWKS: late.URL}).Read(withToken(token))
	expectRefusal(t, err, http.StatusUnauthorized, "signature", token)
}

// A new key is fetched when a token needs it, and one that is gone by then is
// not accepted any more.
func TestJWKSRotation(t *testing.T) {
	k := testKeys()
	set := newIssuer(t, publicJWK("old", k.rsa))
	j := provisioned(t, &caddymodule.JWT{JWKS: set.URL})
	was, is := mint(t, "RS256", k.rsa, goodClaims, header{"kid": "old"}), mint(t, "RS256", k.otherRSA, goodClaims, header{"kid": "new"})
	expectUser(t, j, was)
	set.publish(publicJWK("new", k.otherRSA))
	expectUser(t, j, was) // which does not fetch
	expectUser(t, j, is)
	_, err := j.Read(withToken(was))
	expectRefusal(t, err, http.StatusUnauthorized, `"old"`, was)
	if got := set.fetches.Load(); got != 2 {
		t.Errorf("fetched %d times, want 2", got)
	}
}

func TestJWKSUnknownIDsFetchOnce(t *testing.T) {
	k := testKeys()
	set := newIssuer(t, publicJWK("known", k.p256))
	j := provisioned(t, &caddymodule.JWT{JWKS: set.URL})
	var all sync.WaitGroup
	for i := range 100 {
		token := mint(t, "ES256", k.p256, goodClaims, header{"kid": fmt.Sprint(i)})
		all.Go(func() {
			if _, err := j.Read(withToken(token)); err == nil {
				t.Error("an unknown key is accepted")
			}
		})
	}
	all.Wait()
	if got := set.fetches.Load(); got > 2 {
		t.Errorf("100 tokens made us fetch %d times", got)
	}
}

// A reload while the keys cannot be fetched keeps them.
func TestJWKSReload(t *testing.T) {
	k := testKeys()
	set := newIssuer(t, publicJWK("a", k.p256))
	token := mint(t, "ES256", k.p256, goodClaims, header{"kid": "a"})
	load := func() *caddymodule.JWT {
		j := &caddymodule.JWT{JWKS: set.URL, Algorithms: []string{"ES256"}}
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		t.Cleanup(cancel)
		if err := j.Provision(ctx); err != nil {
			t.Fatal(err)
		}
		return j
	}
	first := load()
	expectUser(t, first, token)
	set.serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	second := load()
	for range 2 { // it may be called more than once
		if err := first.Cleanup(); err != nil {
			t.Fatal(err)
		}
	}
	expectUser(t, second, token)
	third := load()
	expectUser(t, third, token)
	if got := set.fetches.Load(); got != 1 {
		t.Errorf("fetched %d times, want once", got)
	}
	for _, j := range []*caddymodule.JWT{second, third} {
		if err := j.Cleanup(); err != nil {
			t.Fatal(err)
		}
	}
	fourth := load() // without a configuration, nothing is kept
	defer fourth.Cleanup()
	if _, err := fourth.Read(withToken(token)); !errors.Is(err, caddymodule.ErrNoKeys) {
		t.Errorf("got %v, want that there are no keys", err)
	}
}

// It holds a bug: Caddy cleans a configuration up without waiting for its requests,
// and one that was about to check its token then panicked, as the keys were gone.
func TestJWKSCleanedUpEarly(t *testing.T) {
	k := testKeys()
	j := provisioned(t, &caddymodule.JWT{JWKS: newIssuer(t, publicJWK("id", k.rsa)).URL})
	token := mint(t, "RS256", k.rsa, goodClaims, header{"kid": "id"})
	expectUser(t, j, token)
	var reading sync.WaitGroup
	reading.Go(func() { expectUser(t, j, token) })
	if err := j.Cleanup(); err != nil {
		t.Error(err)
	}
	reading.Wait()
	expectUser(t, j, token)
}

// What is no set of keys is not taken for one, and does not stop the server.
func TestJWKSWrongAnswers(t *testing.T) {
	k := testKeys()
	good := jwkSet(publicJWK("a", k.p256))
	token := mint(t, "ES256", k.p256, goodClaims, header{"kid": "a"})
	for name, answer := range map[string]http.HandlerFunc{
		"not found": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404); w.Write(good) },
		"created":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); w.Write(good) },
		"giant": func(w http.ResponseWriter, _ *http.Request) {
			w.Write(append(good, bytes.Repeat([]byte(" "), 1<<20)...))
		},
		"HTML":          func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) },
		"empty":         func(http.ResponseWriter, *http.Request) {},
		"no keys":       func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{}`)) },
		"keys null":     func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"keys":null}`)) },
		"keys twice":    func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"keys":[],"keys":[]}`)) },
		"keys a string": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"keys":"a"}`)) },
		"cut short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10000")
			w.Write(good)
		},
		"a loop": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) },
		"a redirect to a file": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			set := newIssuer(t)
			set.serve(answer)
			j := provisioned(t, &caddymodule.JWT{JWKS: set.URL})
			_, err := j.Read(withToken(token))
			if !errors.Is(err, caddymodule.ErrNoKeys) {
				t.Errorf("got %v, want that there are no keys", err)
			}
			if got := set.fetches.Load(); got > 8 { // two attempts, with three redirects each
				t.Errorf("asked %d times", got)
			}
			if status, header := caddymodule.ProblemOf(err); status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
				t.Errorf("got %d %v", status, header)
			}
		})
	}
	t.Run("no connection", func(t *testing.T) {
		set := newIssuer(t)
		set.Close()
		if _, err := provisioned(t, &caddymodule.JWT{JWKS: set.URL}).Read(withToken(token)); !errors.Is(err, caddymodule.ErrNoKeys) {
			t.Errorf("got %v, want that there are no keys", err)
		}
	})
	t.Run("a redirect", func(t *testing.T) {
		set := newIssuer(t)
		set.serve(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/keys" {
				w.Write(good)
				return
			}
			http.Redirect(w, r, "/keys", http.StatusFound)
		})
		expectUser(t, provisioned(t, &caddymodule.JWT{JWKS: set.URL}), token)
	})
	t.Run("an empty set", func(t *testing.T) {
		_, err := provisioned(t, &caddymodule.JWT{JWKS: newIssuer(t).URL}).Read(withToken(token))
		expectRefusal(t, err, http.StatusUnauthorized, "publishes", token)
	})
}

func TestParseKeySet(t *testing.T) {
	k := testKeys()
	ids, unused, err := caddymodule.ParseKeySet(jwkSet(
		publicJWK("a", k.p256), publicJWK("weak", k.weakRSA), publicJWK("b", k.ed).with("alg", "none"),
		publicJWK("enc", k.rsa).with("use", "enc"), publicJWK("c", k.p256).with("y", base64url(strings.Repeat("1", 32))),
		publicJWK("d", k.rsa).with("d", base64url(string(k.rsa.D.Bytes()))).with("p", base64url(string(k.rsa.Primes[0].Bytes()))).with("q", base64url(string(k.rsa.Primes[1].Bytes()))),
		publicJWK("e", k.rsa).with("e", nil), publicJWK("f", k.rsa).with("n", nil), publicJWK("g", k.rsa),
	))
	if err != nil || !slices.Equal(ids, []string{"a", "g"}) {
		t.Errorf("got %q, %v", ids, err)
	}
	want := []string{"key 2: it has 1024 bits", `key 3: the algorithm "none"`, "key 5: it cannot be read", "key 6: it is a private key", "key 7: it cannot be read"}
	for i, part := range want {
		if len(unused) != len(want) || !strings.Contains(unused[i], part) {
			t.Errorf("got %q, want %q", unused, want)
		}
	}
}
