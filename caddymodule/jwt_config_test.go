package caddymodule_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/caddymodule"
)

// What is configured wrongly is refused before any request comes, with no part
// of the key in the error.
func TestJWTConfigRefused(t *testing.T) {
	k := testKeys()
	privateDER, err := x509.MarshalPKCS8PrivateKey(k.rsa)
	if err != nil {
		t.Fatal(err)
	}
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: privateDER}))
	pubRSA := publicPEM(t, k.rsa)
	for _, tc := range []struct {
		name string
		j    caddymodule.JWT
		says string
	}{
		{"nothing", caddymodule.JWT{}, "there is no key"},
		{"two", caddymodule.JWT{Key: "a", JWKS: "https://example.com/"}, "contradict"},
		{"a secret and a file", caddymodule.JWT{Key: "a", KeyFile: "b"}, "contradict"},
		{"none", caddymodule.JWT{Key: testSecret, Algorithms: []string{"none"}}, "none is never possible"},
		{"NonE", caddymodule.JWT{Key: testSecret, Algorithms: []string{"HS256", "NonE"}}, "none is never possible"},
		{"unknown algorithm", caddymodule.JWT{Key: testSecret, Algorithms: []string{"HS257"}}, `"HS257" is not known`},
		{"algorithm twice", caddymodule.JWT{Key: testSecret, Algorithms: []string{"HS256", "HS256"}}, "twice"},
		{"a secret with RS256", caddymodule.JWT{Key: testSecret, Algorithms: []string{"RS256"}}, "it is a secret, with which RS256 is not possible"},
		{"RSA with HS256", caddymodule.JWT{Key: pubRSA, Algorithms: []string{"RS256", "HS256"}}, "it is an RSA key, with which HS256 is not possible"},
		{"RSA with ES256", caddymodule.JWT{Key: pubRSA, Algorithms: []string{"ES256"}}, "ES256 is not possible"},
		{"P-256 with ES384", caddymodule.JWT{Key: publicPEM(t, k.p256), Algorithms: []string{"ES384"}}, "the curve P-256, with which ES384 is not possible"},
		{"Ed25519 with ES256", caddymodule.JWT{Key: publicPEM(t, k.ed), Algorithms: []string{"ES256"}}, "an Ed25519 key, with which ES256"},
		{"a private key", caddymodule.JWT{Key: private}, "private key, which only the issuer"},
		{"a weak key", caddymodule.JWT{Key: publicPEM(t, k.weakRSA)}, "1024 bits"},
		{"PEM without line breaks", caddymodule.JWT{Key: strings.ReplaceAll(pubRSA, "\n", " ")}, "line breaks"},
		{"PEM that is cut", caddymodule.JWT{Key: pubRSA[:200]}, "looks like PEM"},
		{"two in PEM", caddymodule.JWT{Key: pubRSA + pubRSA}, "more than one"},
		{"PEM of something else", caddymodule.JWT{Key: "-----BEGIN CSR-----\nAAAA\n-----END CSR-----\n"}, "not a public key"},
		{"PEM of nonsense", caddymodule.JWT{Key: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}, "cannot be read"},
		{"an unset variable", caddymodule.JWT{Key: "{env.SSE_TEST_UNSET}"}, "placeholder"},
		{"a secret with braces", caddymodule.JWT{Key: "abc{defghi}jkl"}, "placeholder"},
		{"an empty file placeholder", caddymodule.JWT{Key: "{file." + os.DevNull + "}"}, "placeholder"},
		{"no file", caddymodule.JWT{KeyFile: filepath.Join(t.TempDir(), "none")}, "key_file"},
		{"an empty file", caddymodule.JWT{KeyFile: os.DevNull}, "it is empty"},
		{"JWKS from a file", caddymodule.JWT{JWKS: "file:///etc/keys"}, "jwks must be an address"},
		{"JWKS from nowhere", caddymodule.JWT{JWKS: "keys"}, "jwks must be an address"},
		{"JWKS with a user", caddymodule.JWT{JWKS: "https://u:p@example.com/"}, "user"},
		{"empty audience", caddymodule.JWT{Key: "a", Audience: []string{""}}, "audience"},
		{"from elsewhere", caddymodule.JWT{Key: "a", From: "body"}, "from must be"},
		{"a header's name", caddymodule.JWT{Key: "a", From: "header", FromName: "X"}, "names nothing"},
		{"a cookie without name", caddymodule.JWT{Key: "a", From: "cookie"}, "name of the cookie"},
		{"a cookie's name", caddymodule.JWT{Key: "a", From: "cookie", FromName: "a b"}, "cannot be the name"},
		{"a query without name", caddymodule.JWT{Key: "a", From: "query"}, "name of the query"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
			defer cancel()
			err := tc.j.Provision(ctx)
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("got %v, want %q", err, tc.says)
			}
			if strings.Contains(err.Error(), "defghi") || strings.Contains(err.Error(), "MII") {
				t.Errorf("the key is in the error: %s", err)
			}
			if err := tc.j.Cleanup(); err != nil {
				t.Errorf("cleanup: %s", err)
			}
			checked := tc.j.Check() != nil
			needsFiles := tc.j.KeyFile != "" && tc.j.Key == "" || strings.Contains(tc.j.Key, "{")
			if checked == needsFiles {
				t.Errorf("whether check notices it: %t", checked)
			}
		})
	}
}

func TestJWTKeySources(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	k := testKeys()
	t.Setenv("SSE_TEST_SECRET", testSecret)
	t.Setenv("SSE_TEST_DIR", dir)
	write("secret", testSecret+"\r\n")
	secret := mint(t, "HS256", []byte(testSecret), goodClaims, nil)
	for _, tc := range []struct {
		j     caddymodule.JWT
		token string
	}{
		{caddymodule.JWT{Key: "{env.SSE_TEST_SECRET}"}, secret},
		{caddymodule.JWT{Key: "{file." + filepath.Join(dir, "secret") + "}"}, secret},
		{caddymodule.JWT{KeyFile: "{env.SSE_TEST_DIR}/secret"}, secret},
		{caddymodule.JWT{KeyFile: write("pem", publicPEM(t, k.ed))}, mint(t, "EdDSA", k.ed, goodClaims, nil)},
		{caddymodule.JWT{Key: "some text around\n" + publicPEM(t, k.ed)}, mint(t, "EdDSA", k.ed, goodClaims, nil)},
	} {
		if _, err := provisioned(t, &tc.j).Read(withToken(tc.token)); err != nil {
			t.Errorf("%.40q %q: %s", tc.j.Key, tc.j.KeyFile, err)
		}
	}
}
