package caddymodule

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/go-jose/go-jose/v4"
	"go.uber.org/zap"
)

// JWT says how the tokens of clients are checked: JSON Web Tokens (RFC 7519)
// that are signed, in compact form.
//
// A token tells who the client is by its claim `sub`, and what the client may
// have by a list of channels and prefix patterns. Its `exp` and `nbf` are
// enforced. A token that has neither end nor list is accepted too.
//
// Exactly one of `key`, `key_file` and `jwks` must be set.
type JWT struct {
	// The key that tokens are signed with: the secret of HMAC, or a public key
	// or certificate in PEM, of which only the key counts. RSA keys must have
	// 2048 bits or more. Placeholders, such as {env.KEY}, are replaced when the
	// configuration is loaded.
	Key string `json:"key,omitempty"`

	// A file with the same, which is read when the configuration is loaded. A
	// line break at its end does not belong to a secret. Placeholders in the
	// path are replaced.
	KeyFile string `json:"key_file,omitempty"`

	// The http or https address of a JSON Web Key Set (RFC 7517). It is fetched
	// anew every 5 minutes, and when a token names a key that is not in it, for
	// that reason at most every 10 seconds. While it cannot be fetched, the keys
	// that are known go on being used; they survive reloads.
	JWKS string `json:"jwks,omitempty"`

	// The algorithms that tokens may be signed with. Default: by the type of
	// the key, HS256 for a secret, RS256 for RSA, ES256, ES384 or ES512 by the
	// curve, and EdDSA for Ed25519; a key of a set that names its algorithm is
	// for that one. Secrets that are in a set are used only if an algorithm of
	// HMAC is named here.
	Algorithms []string `json:"algorithms,omitempty"`

	// What the claim `iss` must be. Default: it is not looked at.
	Issuer string `json:"issuer,omitempty"`

	// Of these the claim `aud` must have one. Default: it is not looked at.
	Audience []string `json:"audience,omitempty"`

	// By how much the clocks of the issuer and of this server may differ.
	// Negative is not at all. Default: 30s.
	Leeway caddy.Duration `json:"leeway,omitempty"`

	// The claim that lists channels and prefix patterns. A name with dots in it
	// is that of a claim within claims, unless there is a claim of the whole
	// name. Default: channels.
	Claim string `json:"claim,omitempty"`

	// Where the token is: `header` is Authorization: Bearer <token>, `cookie` a
	// cookie, `query` a query parameter, which is kept out of the access log.
	// Default: the header, or else the cookie sse_token.
	From string `json:"from,omitempty"`

	// The name of the cookie or query parameter.
	FromName string `json:"from_name,omitempty"`

	algorithms []jose.SignatureAlgorithm // that tokens may name
	key        *verifyKey                // of key or key_file
	digest     []byte                    // of that key
	set        *keySet                   // of jwks
	held       bool                      // a reference to it
	log        *slog.Logger
	access     *zap.Logger // Caddy's logger of requests
}

// The places where a token may be.
const (
	fromHeader = "header"
	fromCookie = "cookie"
	fromQuery  = "query"
)

const (
	defaultCookie = "sse_token"
	defaultClaim  = "channels"
	defaultLeeway = 30 * time.Second
)

// maxKeyFile bounds what is read of a file with a key, in bytes.
const maxKeyFile = 64 << 10

// parse reads the block behind the word jwt from Caddyfile tokens. Syntax:
//
//	jwt {
//	    key <secret> | key_file <path> | jwks <url>
//	    alg       <name…>
//	    issuer    <iss>
//	    audience  <aud…>
//	    leeway    <duration> | off
//	    claim     <name>
//	    from      header | cookie <name> | query <name>
//	}
func (j *JWT) parse(d *caddyfile.Dispenser) error {
	start := *d
	err := parseBlock(d, options{
		"key":      func() error { return parseNonempty(d, &j.Key) },
		"key_file": func() error { return parseNonempty(d, &j.KeyFile) },
		"jwks":     func() error { return parseNonempty(d, &j.JWKS) },
		"alg":      func() error { return parseStrings(d, &j.Algorithms) },
		"issuer":   func() error { return parseNonempty(d, &j.Issuer) },
		"audience": func() error { return parseStrings(d, &j.Audience) },
		"leeway":   func() error { return parseDurationOrOff(d, &j.Leeway) },
		"claim":    func() error { return parseNonempty(d, &j.Claim) },
		"from": func() error {
			if err := parseString(d, &j.From); err != nil || j.From == fromHeader {
				return err
			}
			return parseNonempty(d, &j.FromName)
		},
	})
	if err != nil {
		return err
	}
	return atDirective(start, j.check())
}

// parseNonempty is parseString for what would count as missing if it were empty.
func parseNonempty(d *caddyfile.Dispenser, into *string) error {
	option := d.Val()
	if err := parseString(d, into); err != nil {
		return err
	}
	if *into == "" {
		return d.Errf("%s is empty", option)
	}
	return nil
}

// check refuses settings that make no sense, as far as that can be told without
// files, the environment and the network.
func (j *JWT) check() error {
	sources := 0
	for _, source := range []string{j.Key, j.KeyFile, j.JWKS} {
		if source != "" {
			sources++
		}
	}
	switch {
	case sources == 0:
		return errors.New("there is no key to check tokens with: add `key <secret>`, `key_file <path>` or `jwks <url>`")
	case sources > 1:
		return errors.New("key, key_file and jwks contradict each other: leave one of them there")
	case slices.Contains(j.Audience, ""):
		return errors.New("audience: a name is empty")
	}
	algorithms, err := parseAlgorithms(j.Algorithms)
	if err != nil {
		return err
	}
	if j.JWKS != "" {
		if err := checkSetURL(j.JWKS); err != nil {
			return err
		}
	}
	if j.Key != "" && !strings.Contains(j.Key, "{") {
		if _, err := newVerifyKey(j.Key, algorithms); err != nil {
			return fmt.Errorf("key: %w", err)
		}
	}
	return j.checkFrom()
}

func (j *JWT) checkFrom() error {
	switch j.From {
	case "", fromHeader:
		if j.FromName != "" {
			return fmt.Errorf("from: %q names nothing there; the token is in a cookie or query parameter of that name if it says so", j.FromName)
		}
	case fromCookie, fromQuery:
		if j.FromName == "" {
			return fmt.Errorf("from: the name of the %s is missing", j.From)
		}
		cookies, err := http.ParseCookie(j.FromName + "=")
		if j.From == fromCookie && (err != nil || len(cookies) != 1 || cookies[0].Name != j.FromName) {
			return fmt.Errorf("from: %q cannot be the name of a cookie", j.FromName)
		}
	default:
		return fmt.Errorf("from must be %s, %s <name> or %s <name>, not %q", fromHeader, fromCookie, fromQuery, j.From)
	}
	return nil
}

func checkSetURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return errors.New("jwks must be an address such as https://example.com/.well-known/jwks.json")
	case u.User != nil:
		return errors.New("jwks: an address with a user in it is not possible; what verifies tokens is public")
	}
	return nil
}

// provision reads the key, or begins to fetch the set of keys. That the set
// cannot be fetched is no error: the rest of the server must start even so.
func (j *JWT) provision(ctx caddy.Context) error {
	if err := j.check(); err != nil {
		return err
	}
	j.log = ctx.Slogger()
	j.access = accessLogger(ctx)
	algorithms, err := parseAlgorithms(j.Algorithms)
	if err != nil {
		return err
	}
	if j.algorithms = algorithms; j.JWKS != "" {
		if len(algorithms) == 0 {
			j.algorithms = asymmetric
		}
		j.set, err = acquireKeySet(j.JWKS)
		j.held = err == nil
		return err
	}
	text, err := j.keyText()
	if err != nil {
		return err
	}
	if j.key, err = newVerifyKey(text, algorithms); err != nil {
		return fmt.Errorf("key: %w", err)
	}
	digest := sha256.Sum256([]byte(text))
	j.digest = digest[:]
	j.algorithms = j.key.algorithms
	if short := j.key.shortFor(); short != "" {
		j.log.Warn("the secret that tokens are signed with is shorter than it should be: who has a token can try to guess it",
			slog.String("algorithm", string(short)), slog.Int("least_bytes", hashSizes[short]))
	}
	return nil
}

// keyText returns the key as it is configured. No error has any of it: what
// looks like a placeholder may be a part of a secret.
func (j *JWT) keyText() (string, error) {
	repl := caddy.NewReplacer()
	if j.Key != "" {
		key, err := repl.ReplaceOrErr(j.Key, true, true)
		if err != nil {
			return "", errors.New("key: a placeholder in it is unknown or empty; is the environment variable set?")
		}
		return key, nil
	}
	path, err := repl.ReplaceOrErr(j.KeyFile, true, true)
	if err != nil {
		return "", fmt.Errorf("key_file: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("key_file: %w", err)
	}
	if info.Size() > maxKeyFile {
		return "", fmt.Errorf("key_file: %s has %d bytes, more than any key", path, info.Size())
	}
	text, err := os.ReadFile(path) //nolint:gosec // the operator names it
	if err != nil {
		return "", fmt.Errorf("key_file: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
}

// cleanup lets go of the set of keys. It may be called after a provision that
// failed, and more than once. Requests may still be under way, and look into the set.
func (j *JWT) cleanup() error {
	if !j.held {
		return nil
	}
	j.held = false
	_, err := keySets.Delete(j.JWKS)
	return err
}

func (j *JWT) leeway() time.Duration {
	if j.Leeway == 0 {
		return defaultLeeway
	}
	return max(0, time.Duration(j.Leeway))
}
