package caddymodule_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/caddymodule"
)

// provisioned returns the JWT after provisioning.
func provisioned(t testing.TB, j *caddymodule.JWT) *caddymodule.JWT {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := j.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return j
}

// withToken returns a request that has the token where it is by default.
func withToken(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/events", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// expectRefusal checks that an error is a problem of the status whose detail has the
// part, and that nothing in it is of the token.
func expectRefusal(t *testing.T, err error, status int, part, token string) {
	t.Helper()
	if err == nil {
		t.Fatalf("it was accepted; should say %q", part)
	}
	got, header := caddymodule.ProblemOf(err)
	if got != status || !strings.Contains(err.Error(), part) {
		t.Errorf("got %d %q, want %d %q", got, err, status, part)
	}
	code := map[int]string{http.StatusUnauthorized: "invalid_token", http.StatusBadRequest: "invalid_request"}[status]
	challenge := header.Get("WWW-Authenticate")
	if !strings.HasPrefix(challenge, `Bearer realm="sse", error="`+code+`", error_description="`) || strings.Count(challenge, `"`) != 6 {
		t.Errorf("got WWW-Authenticate: %s", challenge)
	}
	if strings.ContainsFunc(challenge, func(r rune) bool { return r < ' ' || r > '~' || r == '\\' }) {
		t.Errorf("there are characters in the header that may not be: %q", challenge)
	}
	recorder := httptest.NewRecorder()
	if err := caddymodule.WriteTestError(recorder, err); err != nil {
		t.Fatal(err)
	}
	noneOf(t, token, recorder.Body.String()+fmt.Sprint(recorder.Header()))
}

// noneOf checks that no part of a token is in a text.
func noneOf(t *testing.T, token, text string) {
	t.Helper()
	for part := range strings.SplitSeq(token, ".") {
		for len(part) >= 12 {
			if strings.Contains(text, part[:12]) {
				t.Fatalf("a part of the token is in %.500q", text)
			}
			part = part[6:]
		}
	}
}

const goodClaims = `{"sub":"ann","channels":["news","stocks-*"]}`

func certificate(t testing.TB) string {
	t.Helper()
	k := testKeys()
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(nil, template, template, k.p256.Public(), k.p256)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestJWTAccepted(t *testing.T) {
	k := testKeys()
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&k.rsa.PublicKey)}))
	for _, tc := range []struct {
		name, key string
		alg       string
		signer    any
		algs      []string
	}{
		{"secret", testSecret, "HS256", []byte(testSecret), nil},
		{"short secret", "short", "HS256", []byte("short"), nil},
		{"short secret, HS384", "short", "HS384", []byte("short"), []string{"HS384"}},
		{"short secret, HS512", "short", "HS512", []byte("short"), []string{"HS256", "HS512"}},
		{"secret of 100 bytes", strings.Repeat("0123456789", 10), "HS256", []byte(strings.Repeat("0123456789", 10)), nil},
		{"secret of 200 bytes, HS512", strings.Repeat("0123456789", 20), "HS512", []byte(strings.Repeat("0123456789", 20)), []string{"HS512"}},
		{"RSA", publicPEM(t, k.rsa), "RS256", k.rsa, nil},
		{"RSA in PKCS 1", pkcs1, "RS256", k.rsa, nil},
		{"RS384", publicPEM(t, k.rsa), "RS384", k.rsa, []string{"RS384"}},
		{"RS512", publicPEM(t, k.rsa), "RS512", k.rsa, []string{"RS512"}},
		{"PS256", publicPEM(t, k.rsa), "PS256", k.rsa, []string{"PS256"}},
		{"PS384", publicPEM(t, k.rsa), "PS384", k.rsa, []string{"PS384"}},
		{"PS512", publicPEM(t, k.rsa), "PS512", k.rsa, []string{"RS256", "PS512"}},
		{"ES256", publicPEM(t, k.p256), "ES256", k.p256, nil},
		{"ES384", publicPEM(t, k.p384), "ES384", k.p384, nil},
		{"ES512", publicPEM(t, k.p521), "ES512", k.p521, nil},
		{"EdDSA", publicPEM(t, k.ed), "EdDSA", k.ed, nil},
		{"certificate", certificate(t), "ES256", k.p256, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := provisioned(t, &caddymodule.JWT{Key: tc.key, Algorithms: tc.algs})
			got, err := j.Read(withToken(mint(t, tc.alg, tc.signer, goodClaims, header{"kid": "whatever"})))
			if err != nil {
				t.Fatal(err)
			}
			if want := (&caddymodule.Bearer{User: "ann", Channels: []string{"news", "stocks-*"}}); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// A token that is not signed with the key, by an algorithm that is possible with
// it, is refused whatever its header says.
func TestJWTForged(t *testing.T) {
	k := testKeys()
	pubRSA, pubEC := publicPEM(t, k.rsa), publicPEM(t, k.p256)
	good := mint(t, "RS256", k.rsa, goodClaims, nil)
	parts := strings.Split(good, ".")
	embedded := publicJWK("x", k.otherRSA)
	for _, tc := range []struct{ name, key, token, says string }{
		{"alg none", pubRSA, base64url(`{"alg":"none"}`) + "." + base64url(goodClaims) + ".", `signed with "none"`},
		{"alg None", pubRSA, base64url(`{"alg":"None"}`) + "." + base64url(goodClaims) + ".", `signed with "None"`},
		{"alg NONE", testSecret, base64url(`{"alg":"NONE"}`) + "." + base64url(goodClaims) + ".", `signed with "NONE"`},
		{"alg nOnE, signed", testSecret, mint(t, "HS256", []byte(testSecret), goodClaims, header{"alg": "nOnE"}), `signed with "nOnE"`},
		{"alg empty", testSecret, mint(t, "HS256", []byte(testSecret), goodClaims, header{"alg": ""}), `signed with ""`},
		{"alg null", testSecret, mint(t, "HS256", []byte(testSecret), goodClaims, header{"alg": nil}), `signed with ""`},
		{"alg a number", testSecret, mint(t, "HS256", []byte(testSecret), goodClaims, header{"alg": 256}), `signed with ""`},
		{"alg in lower case", testSecret, mint(t, "HS256", []byte(testSecret), goodClaims, header{"alg": "hs256"}), `signed with "hs256"`},
		{"alg missing", testSecret, mintRaw(t, "HS256", []byte(testSecret), `{}`, goodClaims), `signed with ""`},
		{"alg long", testSecret, mint(t, "HS256", []byte(testSecret), goodClaims, header{"alg": strings.Repeat("x", 1000)}), `"` + strings.Repeat("x", 64) + `",`},
		{"alg that injects", testSecret, mint(t, "HS256", []byte(testSecret), goodClaims, header{"alg": "a\"\r\nSet-Cookie: é=\u202e1"}), `"a\"\r\nSet-Cookie: \u00e9=\u202e1"`},
		{"HS256 with the public key", pubRSA, mint(t, "HS256", []byte(pubRSA), goodClaims, nil), `signed with "HS256"`},
		{"HS256 with the curve's key", pubEC, mint(t, "HS256", []byte(pubEC), goodClaims, nil), `signed with "HS256"`},
		{"the public key as HMAC, called RS256", pubRSA, mint(t, "HS256", []byte(pubRSA), goodClaims, header{"alg": "RS256"}), "signature"},
		{"another key", pubRSA, mint(t, "RS256", k.otherRSA, goodClaims, nil), "signature"},
		{"another secret", testSecret, mint(t, "HS256", []byte(testSecret+"."), goodClaims, nil), "signature"},
		{"a secret that differs by zeros behind", testSecret, mint(t, "HS256", []byte("a secret"), goodClaims, nil), "signature"},
		{"PS256 for RS256", pubRSA, mint(t, "PS256", k.rsa, goodClaims, nil), `signed with "PS256"`},
		{"PS256 called RS256", pubRSA, mint(t, "PS256", k.rsa, goodClaims, header{"alg": "RS256"}), "signature"},
		{"RS512 for RS256", pubRSA, mint(t, "RS512", k.rsa, goodClaims, nil), `signed with "RS512"`},
		{"ES384 for ES256", pubEC, mint(t, "ES384", k.p384, goodClaims, nil), `signed with "ES384"`},
		{"an ECDSA signature of zeros", pubEC, base64url(`{"alg":"ES256"}`) + "." + base64url(goodClaims) + "." + base64url(strings.Repeat("\x00", 64)), "signature"},
		{"the attacker's key in the header", pubRSA, mint(t, "RS256", k.otherRSA, goodClaims, header{"jwk": embedded, "kid": "x"}), "signature"},
		{"the attacker's key at an address", pubRSA, mint(t, "RS256", k.otherRSA, goodClaims, header{"jku": "http://127.0.0.1:1/"}), "signature"},
		{"a kid that is a path", pubRSA, mint(t, "RS256", k.otherRSA, goodClaims, header{"kid": "../../dev/null"}), "signature"},
		{"a kid that is a number", pubRSA, mint(t, "RS256", k.rsa, goodClaims, header{"kid": 1}), "header cannot be read"},
		{"crit", pubRSA, mint(t, "RS256", k.rsa, goodClaims, header{"crit": []string{"exp"}, "exp": 1}), "crit"},
		{"crit null", pubRSA, mint(t, "RS256", k.rsa, goodClaims, header{"crit": nil}), "crit"},
		{"b64", pubRSA, mint(t, "RS256", k.rsa, goodClaims, header{"b64": false}), "b64"},
		{"alg twice", testSecret, mintRaw(t, "HS256", []byte(testSecret), `{"alg":"HS256","alg":"none"}`, goodClaims), "twice"},
		{"header null", testSecret, mintRaw(t, "HS256", []byte(testSecret), `null`, goodClaims), "not a JSON object"},
		{"header an array", testSecret, mintRaw(t, "HS256", []byte(testSecret), `["HS256"]`, goodClaims), "not a JSON object"},
		{"claims changed", pubRSA, parts[0] + "." + base64url(`{"sub":"bob"}`) + "." + parts[2], "signature"},
		{"signature cut", pubRSA, good[:len(good)-4], "signature"},
		{"signature missing", pubRSA, parts[0] + "." + parts[1] + ".", "signature"},
		{"two parts", pubRSA, parts[0] + "." + parts[1], "malformed"},
		{"four parts", pubRSA, good + ".", "malformed"},
		{"five parts, encrypted", pubRSA, good + ".a.b", "malformed"},
		{"JSON form", pubRSA, `{"payload":"e30","signatures":[]}`, "malformed"},
		{"padding", pubRSA, parts[0] + "=." + parts[1] + "." + parts[2], "malformed"},
		{"a line break within", pubRSA, parts[0] + "\n." + parts[1] + "." + parts[2], "malformed"},
		{"white space within", pubRSA, parts[0] + " ." + parts[1] + "." + parts[2], "malformed"},
		{"dots", pubRSA, "..", "header"},
		{"garbage", pubRSA, "garbage", "malformed"},
		{"a header that is no Base64", pubRSA, "a.b.c", "Base64url"},
		{"too long", pubRSA, good + strings.Repeat("A", 8<<10), "too long"},
		{"claims an array", testSecret, mint(t, "HS256", []byte(testSecret), `["sub"]`, nil), "claims are not a JSON object"},
		{"claims null", testSecret, mint(t, "HS256", []byte(testSecret), `null`, nil), "claims are not a JSON object"},
		{"claims no JSON", testSecret, mint(t, "HS256", []byte(testSecret), `sub`, nil), "claims are not a JSON object"},
		{"claims empty", testSecret, mint(t, "HS256", []byte(testSecret), ``, nil), "claims are not a JSON object"},
		{"claims and more", testSecret, mint(t, "HS256", []byte(testSecret), `{} {}`, nil), "claims are not a JSON object"},
		{"claims not UTF-8", testSecret, mint(t, "HS256", []byte(testSecret), "{\"x\":\"\xff\"}", nil), "UTF-8"},
		{"a claim twice", testSecret, mint(t, "HS256", []byte(testSecret), `{"exp":1,"exp":99999999999}`, nil), "twice"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := provisioned(t, &caddymodule.JWT{Key: tc.key})
			_, err := j.Read(withToken(tc.token))
			expectRefusal(t, err, http.StatusUnauthorized, tc.says, tc.token)
		})
	}
}

func list(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("c%d", i)
	}
	text, _ := json.Marshal(names) // strings never fail
	return string(text)
}

// readClaims reads claims as if they were signed.
func readClaims(t *testing.T, j caddymodule.JWT, claims string) (*caddymodule.Bearer, error) {
	t.Helper()
	return provisioned(t, &j).ReadClaims([]byte(claims))
}

func TestJWTClaimsRefused(t *testing.T) {
	strict := caddymodule.JWT{Key: testSecret, Issuer: "https://example.com/", Audience: []string{"sse", "live"}}
	plain := caddymodule.JWT{Key: testSecret}
	nested := caddymodule.JWT{Key: testSecret, Claim: "app.sse.channels"}
	for _, tc := range []struct {
		name   string
		j      caddymodule.JWT
		claims string
		says   string
	}{
		{"expired", plain, `{"exp":1000000000}`, "expired at 2001-09-09T01:46:40Z; get a new one"},
		{"exp zero", plain, `{"exp":0}`, "expired"},
		{"exp a string", plain, `{"exp":"99999999999"}`, "exp must be a number"},
		{"exp null", plain, `{"exp":null}`, "exp must be a number"},
		{"exp an array", plain, `{"exp":[99999999999]}`, "exp must be a number"},
		{"exp too large", plain, `{"exp":1e999}`, "exp must be a number"},
		{"exp negative", plain, `{"exp":-1}`, "exp must be a number"},
		{"nbf ahead", plain, `{"nbf":9999999999}`, "not valid before 2286-11-20T17:46:39Z"},
		{"nbf a string", plain, `{"nbf":"1"}`, "nbf must be a number"},
		{"foreign issuer", strict, `{"iss":"https://example.com","aud":"sse"}`, "issuer"},
		{"no issuer", strict, `{"aud":"sse"}`, "issuer"},
		{"issuers", strict, `{"iss":["https://example.com/"],"aud":"sse"}`, "issuer"},
		{"issuer null", strict, `{"iss":null,"aud":"sse"}`, "issuer"},
		{"issuer in capitals", strict, `{"ISS":"https://example.com/","aud":"sse"}`, "issuer"},
		{"foreign audience", strict, `{"iss":"https://example.com/","aud":"app"}`, "audience"},
		{"foreign audiences", strict, `{"iss":"https://example.com/","aud":["app","ss"]}`, "audience"},
		{"no audience", strict, `{"iss":"https://example.com/"}`, "audience"},
		{"empty audience", strict, `{"iss":"https://example.com/","aud":[]}`, "audience"},
		{"audience an object", strict, `{"iss":"https://example.com/","aud":{"sse":"sse"}}`, "audience"},
		{"audience with a number", strict, `{"iss":"https://example.com/","aud":["sse",1]}`, "audience"},
		{"audience within", strict, `{"iss":"https://example.com/","aud":[["sse"]]}`, "audience"},
		{"sub a number", plain, `{"sub":1}`, "sub must be a string"},
		{"sub null", plain, `{"sub":null}`, "sub must be a string"},
		{"sub an object", plain, `{"sub":{"id":"ann"}}`, "sub must be a string"},
		{"sub long", plain, `{"sub":"` + strings.Repeat("x", 256) + `"}`, "255 bytes"},
		{"sub with a line break", plain, `{"sub":"a\nb"}`, "control characters"},
		{"sub with NUL", plain, `{"sub":"a\u0000"}`, "control characters"},
		{"sub with half a surrogate pair", plain, `{"sub":"a\ud800"}`, "sub must be"},
		{"channels a string", plain, `{"channels":"news"}`, `claim "channels" must be a list`},
		{"channels a number", plain, `{"channels":1}`, `claim "channels" must be a list`},
		{"channels an object", plain, `{"channels":{"news":true}}`, `claim "channels" must be a list`},
		{"channels null", plain, `{"channels":null}`, `claim "channels" must be a list`},
		{"channels within", plain, `{"channels":[["news"]]}`, `claim "channels" must be a list`},
		{"channels with a number", plain, `{"channels":["news",1]}`, `claim "channels" must be a list`},
		{"channels with null", plain, `{"channels":["news",null]}`, `claim "channels" must be a list`},
		{"channels with an empty name", plain, `{"channels":["news",""]}`, `entry 2 of the token's claim "channels"`},
		{"a pattern within", plain, `{"channels":["a*b"]}`, `entry 1 of`},
		{"two patterns", plain, `{"channels":["**"]}`, `entry 1 of`},
		{"several in one", plain, `{"channels":["a,b"]}`, `entry 1 of`},
		{"half a surrogate pair", plain, `{"channels":["a\udc00"]}`, `entry 1 of`},
		{"channels too many", plain, `{"channels":` + list(1001) + `}`, "has 1001 entries"},
		{"the nested claim is a string", nested, `{"app":{"sse":{"channels":"news"}}}`, `claim "app.sse.channels" must be a list`},
		{"what should hold it is a string", nested, `{"app":{"sse":"news"}}`, `claim "app.sse.channels" must be a list`},
		{"what should hold it is null", nested, `{"app":null}`, `claim "app.sse.channels" must be a list`},
		{"a nested claim twice", nested, `{"app":{"sse":{"channels":["a"],"channels":["b"]}}}`, `claim "app.sse.channels" must be a list`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := readClaims(t, tc.j, tc.claims)
			expectRefusal(t, err, http.StatusUnauthorized, tc.says, "")
		})
	}
}

func TestJWTClaimsAccepted(t *testing.T) {
	strict := caddymodule.JWT{Key: testSecret, Issuer: "https://example.com/", Audience: []string{"sse", "live"}}
	plain := caddymodule.JWT{Key: testSecret}
	nested := caddymodule.JWT{Key: testSecret, Claim: "app.sse"}
	address := caddymodule.JWT{Key: testSecret, Claim: "https://example.com/channels"}
	for _, tc := range []struct {
		name     string
		j        caddymodule.JWT
		claims   string
		user     string
		channels []string
	}{
		{"nothing", plain, `{}`, "", nil},
		{"what nobody knows", plain, `{"x":{"exp":1},"aud":1,"iss":[]}`, "", nil},
		{"user of 255 bytes", plain, `{"sub":"` + strings.Repeat("x", 255) + `"}`, strings.Repeat("x", 255), nil},
		{"no channel", plain, `{"channels":[]}`, "", []string{}},
		{"all channels", plain, `{"channels":["*"]}`, "", []string{"*"}},
		{"parties", strict, `{"iss":"https://example.com/","aud":"live"}`, "", nil},
		{"several audiences", strict, `{"iss":"https://example.com/","aud":["app","sse"]}`, "", nil},
		{"nested", nested, `{"app":{"sse":["a"]},"channels":["b"]}`, "", []string{"a"}},
		{"the literal name wins", nested, `{"app":{"sse":["a"]},"app.sse":["c"]}`, "", []string{"c"}},
		{"nested, nothing there", nested, `{"app":{},"channels":["b"]}`, "", nil},
		{"nested, nothing around", nested, `{"channels":["b"]}`, "", nil},
		{"an address", address, `{"https://example.com/channels":["a"]}`, "", []string{"a"}},
		{"many channels", plain, `{"channels":` + list(1000) + `}`, "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := readClaims(t, tc.j, tc.claims)
			if err != nil {
				t.Fatal(err)
			}
			if tc.name == "many channels" && len(got.Channels) == 1000 {
				return
			}
			if want := (&caddymodule.Bearer{User: tc.user, Channels: tc.channels}); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// To the instant: from when on a token is valid, and how long.
func TestJWTLeeway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now() // a whole second
		in := func(d time.Duration) time.Time { return now.Add(d) }
		for _, tc := range []struct {
			name    string
			leeway  time.Duration
			claim   string
			at      time.Duration
			expires time.Time // zero: refused
		}{
			{"ahead", 0, "exp", time.Minute, in(time.Minute)},
			{"one second", 0, "exp", time.Second, in(time.Second)},
			{"just now", 0, "exp", 0, in(30 * time.Second)},
			{"within the leeway", 0, "exp", -29 * time.Second, in(time.Second)},
			{"at the leeway's end", 0, "exp", -30 * time.Second, time.Time{}},
			{"no leeway", -1, "exp", time.Second, in(time.Second)},
			{"no leeway, just now", -1, "exp", 0, time.Time{}},
			{"a minute", time.Minute, "exp", -59 * time.Second, in(time.Second)},
			{"a minute, over", time.Minute, "exp", -60 * time.Second, time.Time{}},
			{"a fraction", -1, "exp", 500 * time.Millisecond, in(500 * time.Millisecond)},
			{"begins within", 0, "nbf", 30 * time.Second, in(1000 * time.Hour)},
			{"begins later", 0, "nbf", 31 * time.Second, time.Time{}},
			{"begins now, no leeway", -1, "nbf", 0, in(1000 * time.Hour)},
			{"begins soon, no leeway", -1, "nbf", 500 * time.Millisecond, time.Time{}},
		} {
			claims := fmt.Sprintf(`{%q:%.3f}`, tc.claim, float64(now.Add(tc.at).UnixMilli())/1000)
			if tc.claim == "nbf" {
				claims = fmt.Sprintf(`{"exp":%d,%s`, in(1000*time.Hour).Unix(), claims[1:])
			}
			got, err := readClaims(t, caddymodule.JWT{Key: testSecret, Leeway: caddy.Duration(tc.leeway)}, claims)
			switch {
			case err != nil != tc.expires.IsZero():
				t.Errorf("%s: got error %v", tc.name, err)
			case err == nil && got.Expires.Sub(tc.expires).Abs() > time.Microsecond:
				t.Errorf("%s: expires at %s, want %s", tc.name, got.Expires, tc.expires)
			}
		}
		got, err := readClaims(t, caddymodule.JWT{Key: testSecret}, `{"exp":1e300}`)
		if err != nil || got.Expires.Year() != 9999 {
			t.Errorf("got %v, %v for a time that never comes", got, err)
		}
	})
}

func TestJWTPlaces(t *testing.T) {
	good := func(user string) string {
		return mint(t, "HS256", []byte(testSecret), `{"sub":"`+user+`"}`, nil)
	}
	header, cookie, query := good("header"), good("cookie"), good("query")
	byDefault := caddymodule.JWT{}
	onlyHeader := caddymodule.JWT{From: "header"}
	onlyCookie := caddymodule.JWT{From: "cookie", FromName: "session"}
	onlyQuery := caddymodule.JWT{From: "query", FromName: "token"}
	umlaut := caddymodule.JWT{From: "query", FromName: "schlüssel\\"}
	bearer := "Authorization: Bearer "
	for _, tc := range []struct {
		name    string
		j       caddymodule.JWT
		query   string
		headers []string
		want    string // the user; "-" for no token, a number for a refusal
	}{
		{"nothing", byDefault, "", nil, "-"},
		{"header", byDefault, "", []string{bearer + header}, "header"},
		{"scheme in other letters", byDefault, "", []string{"Authorization: bEARER  " + header + " "}, "header"},
		{"cookie", byDefault, "", []string{"Cookie: a=b; sse_token=" + cookie}, "cookie"},
		{"header before cookie", byDefault, "", []string{bearer + header, "Cookie: sse_token=" + cookie}, "header"},
		{"a bad header is not mended by a cookie", byDefault, "", []string{bearer + "x", "Cookie: sse_token=" + cookie}, "401"},
		{"the query is not looked at", byDefault, "token=" + query, nil, "-"},
		{"another scheme", byDefault, "", []string{"Authorization: Basic " + header}, "-"},
		{"another scheme and cookie", byDefault, "", []string{"Authorization: Basic x", "Cookie: sse_token=" + cookie}, "cookie"},
		{"the scheme is longer", byDefault, "", []string{"Authorization: Bearers " + header}, "-"},
		{"no token in the header", byDefault, "", []string{"Authorization: Bearer "}, "400"},
		{"two headers", byDefault, "", []string{bearer + header, bearer + header}, "400"},
		{"two headers of other schemes", byDefault, "", []string{"Authorization: Basic x", bearer + header}, "400"},
		{"two cookies", byDefault, "", []string{"Cookie: sse_token=" + cookie + "; sse_token=x"}, "400"},
		{"two cookies in two headers", byDefault, "", []string{"Cookie: sse_token=" + cookie, "Cookie: sse_token=x"}, "400"},
		{"an empty cookie", byDefault, "", []string{"Cookie: sse_token="}, "-"},
		{"only the header", onlyHeader, "", []string{"Cookie: sse_token=" + cookie}, "-"},
		{"only the header, which is there", onlyHeader, "", []string{bearer + header}, "header"},
		{"only the cookie", onlyCookie, "", []string{bearer + header, "Cookie: sse_token=" + header + "; session=" + cookie}, "cookie"},
		{"only the query", onlyQuery, "channel=a&token=" + query, []string{bearer + header}, "query"},
		{"the query's name escaped", onlyQuery, "%74oken=" + query, nil, "query"},
		{"query empty", onlyQuery, "token=", nil, "-"},
		{"query without it", onlyQuery, "tokens=" + query, []string{bearer + header}, "-"},
		{"query twice", onlyQuery, "token=" + query + "&token=" + query, nil, "400"},
		{"query twice, escaped", onlyQuery, "token=" + query + "&t%6Fken=x", nil, "400"},
		{"query malformed", onlyQuery, "token=%zz" + query, nil, "400"},
		{"query of a name that is no ASCII", umlaut, "schl%C3%BCssel%5C=" + query, nil, "query"},
		{"query of such a name twice", umlaut, "schl%C3%BCssel%5C=x&schl%C3%BCssel%5C=y", nil, "400"},
		{"query behind a semicolon", onlyQuery, "a=b;token=" + query, nil, "400"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := tc.j
			j.Key = testSecret
			r := httptest.NewRequest(http.MethodGet, "/events?"+tc.query, nil)
			for _, line := range tc.headers {
				name, value, _ := strings.Cut(line, ": ")
				r.Header.Add(name, value)
			}
			b, err := provisioned(t, &j).Read(r)
			got := "-"
			if b != nil {
				got = b.User
			}
			if err != nil {
				status, _ := caddymodule.ProblemOf(err)
				got = fmt.Sprint(status)
				expectRefusal(t, err, status, "", header+"."+cookie+"."+query)
			}
			if got != tc.want {
				t.Errorf("got %s (%v), want %s", got, err, tc.want)
			}
		})
	}
}
