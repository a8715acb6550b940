package caddymodule_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-sse/caddy-sse/caddymodule"
)

// parseJWT parses a block with the dispenser at the word jwt.
func parseJWT(text string) (*caddymodule.JWT, error) {
	d := caddyfile.NewTestDispenser(text)
	d.Next()
	j := new(caddymodule.JWT)
	return j, j.Parse(d)
}

func TestJWTParse(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"jwt {\n\tkey secret\n}", `{"key":"secret"}`},
		{"jwt {\n\tkey {env.SSE_TEST_UNSET}\n\talg RS256 PS256\n}", `{"key":"{env.SSE_TEST_UNSET}","algorithms":["RS256","PS256"]}`},
		{
			"jwt {\n\tjwks https://example.com/keys\n\tissuer https://example.com/\n\taudience a b\n\tleeway 1m\n\tclaim app.channels\n\tfrom cookie session\n}",
			`{"jwks":"https://example.com/keys","issuer":"https://example.com/","audience":["a","b"],"leeway":60000000000,"claim":"app.channels","from":"cookie","from_name":"session"}`,
		},
		{"jwt {\n\tkey_file /k\n\tleeway off\n\tfrom header\n}", `{"key_file":"/k","leeway":-1000000000,"from":"header"}`},
		{"jwt {\n\tkey_file /k\n\tfrom query token\n}", `{"key_file":"/k","from":"query","from_name":"token"}`},
	} {
		j, err := parseJWT(tc.text)
		if err != nil {
			t.Errorf("%s: %s", tc.text, err)
			continue
		}
		if got, err := json.Marshal(j); err != nil || string(got) != tc.want {
			t.Errorf("%s:\ngot  %s %v\nwant %s", tc.text, got, err, tc.want)
		}
	}
}

// What is wrong is an error with its line.
func TestJWTParseErrors(t *testing.T) {
	for _, tc := range []struct{ text, says string }{
		{"jwt", "jwt: there is no key to check tokens with: add `key <secret>`, `key_file <path>` or `jwks <url>`, at Testfile:1"},
		{"jwt secret", `unexpected "secret", at Testfile:1`},
		{"jwt {\n\tkey a\n\tkeys b\n}", `unrecognized option "keys"; there are: alg, audience, claim, from, issuer, jwks, key, key_file, leeway, at Testfile:3`},
		{"jwt {\n\tkey a\n\tkey b\n}", "key is given twice; it takes all its values in one line, at Testfile:3"},
		{"jwt {\n\tkey a b\n}", `unexpected "b", at Testfile:2`},
		{"jwt {\n\tkey\n}", "wrong argument count or unexpected line ending after 'key', at Testfile:2"},
		{"jwt {\n\tkey \"\"\n}", "key is empty, at Testfile:2"},
		{"jwt {\n\tkey a\n\tissuer \"\"\n}", "issuer is empty, at Testfile:3"},
		{"jwt {\n\tkey a\n\tjwks http://127.0.0.1/\n}", "jwt: key, key_file and jwks contradict each other: leave one of them there, at Testfile:1"},
		{"jwt {\n\tkey a\n\talg\n}", "after 'alg', at Testfile:3"},
		{"jwt {\n\tkey a\n\talg none\n}", "jwt: alg: none is never possible; with it everybody could make tokens, at Testfile:1"},
		{"jwt {\n\tkey a\n\talg RS256\n}", "jwt: key: it is a secret, with which RS256 is not possible; there are for it: HS256, HS384, HS512, at Testfile:1"},
		{"jwt {\n\tkey a\n\tleeway -1s\n}", `"-1s" is not a duration`},
		{"jwt {\n\tkey a\n\tfrom\n}", "after 'from', at Testfile:3"},
		{"jwt {\n\tkey a\n\tfrom cookie\n}", "after 'cookie', at Testfile:3"},
		{"jwt {\n\tkey a\n\tfrom query \"\"\n}", "query is empty, at Testfile:3"},
		{"jwt {\n\tkey a\n\tfrom header X\n}", `unexpected "X", at Testfile:3`},
		{"jwt {\n\tkey a\n\tfrom body x\n}", `jwt: from must be header, cookie <name> or query <name>, not "body", at Testfile:1`},
		{"jwt {\n\tkey a {\n\t}\n}", `unrecognized option "{"`},
	} {
		if _, err := parseJWT(tc.text); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s:\ngot  %v\nwant %s", tc.text, err, tc.says)
		}
	}
}
