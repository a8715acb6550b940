package caddymodule

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// A bearer is what a valid token says of the client that presented it.
type bearer struct {
	user     string    // empty if the token names nobody
	channels []string  // channels and prefix patterns that the client may have
	expires  time.Time // from when on the token is not valid; zero is never
}

const (
	maxToken      = 8 << 10 // bytes
	maxCandidates = 10      // keys that are tried for a token that does not name its key
)

// read returns what the token of a request says, nil if there is none. An error
// is a problem that tells what to mend, or matches [errNoKeys].
//
// No error has any part of the token in it, but for the names of its algorithm
// and key, quoted and cut.
func (j *JWT) read(r *http.Request) (*bearer, error) {
	token, err := j.token(r)
	if err != nil || token == "" {
		return nil, err
	}
	payload, err := j.verify(r.Context(), token)
	if err != nil {
		return nil, err
	}
	return j.readClaims(payload, time.Now())
}

// token returns the token of a request, empty if it has none.
func (j *JWT) token(r *http.Request) (string, error) {
	switch j.From {
	case fromHeader:
		return headerToken(r)
	case fromCookie:
		return cookieToken(r, j.FromName)
	case fromQuery:
		return queryToken(r, j.FromName)
	}
	token, err := headerToken(r)
	if err != nil || token != "" {
		return token, err
	}
	return cookieToken(r, defaultCookie)
}

// headerToken reads RFC 6750 section 2.1. A header of another scheme is for
// somebody else.
func headerToken(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", malformedRequest("the header Authorization is given %d times; send one", len(values))
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	if token = strings.TrimSpace(token); token == "" {
		return "", malformedRequest("the header Authorization has no token; send Authorization: Bearer <token>")
	}
	return token, nil
}

// cookieToken refuses two cookies of a name: another site of the same domain
// can add one, and with that its own user.
func cookieToken(r *http.Request, name string) (string, error) {
	cookies := r.CookiesNamed(name)
	switch len(cookies) {
	case 0:
		return "", nil
	case 1:
		return cookies[0].Value, nil
	}
	return "", malformedRequest("the cookie %.64q is given %d times; set it for one path and domain only", name, len(cookies))
}

func queryToken(r *http.Request, name string) (string, error) {
	query, taken := r.Context().Value(takenKey{}).(takenParameter)
	if !taken {
		_, query = takeParameter(r.URL.RawQuery, name)
	}
	switch {
	case query.malformed:
		return "", malformedRequest("the query parameter %.64q cannot be read: check how it is escaped", name)
	case len(query.values) > 1:
		return "", malformedRequest("the query parameter %.64q is given %d times; send one", name, len(query.values))
	case len(query.values) == 0:
		return "", nil
	}
	return query.values[0], nil
}

// verify returns the claims of a token as they are signed.
func (j *JWT) verify(ctx context.Context, token string) ([]byte, error) {
	if err := checkForm(token); err != nil {
		return nil, err
	}
	signed, err := jose.ParseSignedCompact(token, j.algorithms)
	var unexpected *jose.ErrUnexpectedSignatureAlgorithm
	switch {
	case errors.As(err, &unexpected):
		return nil, invalidToken("the token is signed with %+.64q, which is not among the algorithms that this endpoint accepts: %s",
			unexpected.Got, listAlgorithms(j.algorithms))
	case err != nil: // which quotes the token
		return nil, invalidToken("the token's header cannot be read; it must be a signed JSON Web Token in compact form")
	}
	header := signed.Signatures[0].Protected
	candidates, err := j.candidates(ctx, header.KeyID, jose.SignatureAlgorithm(header.Algorithm))
	if err != nil {
		return nil, err
	}
	for _, k := range candidates {
		if payload, err := signed.Verify(k.key); err == nil {
			return payload, nil
		}
	}
	return nil, invalidToken("the token's signature is not by the key that this endpoint trusts; was it made by another issuer, or changed?")
}

// candidates returns the keys that a token of that header may be signed with,
// one at least.
func (j *JWT) candidates(ctx context.Context, id string, alg jose.SignatureAlgorithm) ([]*verifyKey, error) {
	if j.key != nil {
		return []*verifyKey{j.key}, nil // its algorithms are the ones accepted
	}
	keys, err := j.set.find(ctx, id)
	if err != nil {
		return nil, err
	}
	var candidates []*verifyKey
	for _, k := range keys {
		if j.accepts(k, alg) && len(candidates) < maxCandidates {
			candidates = append(candidates, k)
		}
	}
	switch {
	case len(candidates) > 0:
		return candidates, nil
	case len(keys) == 0 && id != "":
		return nil, invalidToken("the token is signed with the key %+.64q, which is not among those that the issuer publishes; get a new token", id)
	case id != "":
		return nil, invalidToken("the token is signed with %s, for which its key %+.64q is not", alg, id)
	}
	return nil, invalidToken("the token is signed with %s, for which the issuer publishes no key", alg)
}

// checkForm refuses what the library would take with more indulgence: Base64
// with line breaks in it, and parameters of the header that change the meaning
// of a token. Of `crit` (RFC 7515 section 4.1.11) there are none that we know,
// and `b64` is not for these tokens (RFC 7797 section 7).
func checkForm(token string) error {
	if len(token) > maxToken {
		return invalidToken("the token has more than %d bytes, which is too long", maxToken)
	}
	if strings.Count(token, ".") != 2 || strings.ContainsFunc(token, notInToken) {
		return invalidToken("the token is malformed; it must be a signed JSON Web Token: three parts of Base64url with dots between")
	}
	text, _, _ := strings.Cut(token, ".")
	header, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return invalidToken("the token's header is not Base64url")
	}
	var parameters map[string]json.RawMessage
	if json.Unmarshal(header, &parameters) != nil || parameters == nil {
		return invalidToken("the token's header is not a JSON object, or has a parameter twice")
	}
	for _, name := range []string{"crit", "b64"} {
		if _, ok := parameters[name]; ok {
			return invalidToken("the token's header has the parameter %s, which is not supported; make tokens without it", name)
		}
	}
	return nil
}

func notInToken(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '_' && r != '.'
}

// invalidToken is the problem of a token that is not accepted (RFC 6750 section
// 3.1).
func invalidToken(format string, args ...any) *problem {
	return challenge(problemf(http.StatusUnauthorized, format, args...), "invalid_token")
}

// malformedRequest is the problem of a request whose token cannot be told.
func malformedRequest(format string, args ...any) *problem {
	return challenge(problemf(http.StatusBadRequest, format, args...), "invalid_request")
}

func challenge(p *problem, code string) *problem {
	return p.with("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s", error="%s", error_description="%s"`,
		realm, code, strings.Map(inDescription, p.Detail)))
}

// inDescription replaces what may not be in an error_description (RFC 6750
// section 3), which includes all that could end the header or its quotes.
func inDescription(r rune) rune {
	switch {
	case r == '"':
		return '\''
	case r < ' ' || r > '~' || r == '\\':
		return '?'
	}
	return r
}
