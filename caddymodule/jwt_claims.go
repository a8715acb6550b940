package caddymodule

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"

	"github.com/caddy-sse/caddy-sse/sse"
)

const (
	maxUser    = 255  // bytes
	maxGranted = 1000 // channels and patterns of one token
)

// lastDate is the end of the year 9999, in seconds since 1970. What is later
// counts as this, so that it can be reckoned with.
const lastDate = 253402300799

// claims are those of a token as JSON. The library that decodes them refuses
// objects that have a name twice, and minds the case of names, so that what
// another reader takes from them is the same.
type claims map[string]json.RawMessage

// readClaims returns what claims say that are signed.
func (j *JWT) readClaims(payload []byte, now time.Time) (*bearer, error) {
	var c claims
	if !utf8.Valid(payload) || json.Unmarshal(payload, &c) != nil || c == nil {
		return nil, invalidToken("the token's claims are not a JSON object in UTF-8, or have a name twice")
	}
	var b bearer
	var err error
	if b.expires, err = j.readTimes(c, now); err != nil {
		return nil, err
	}
	if err := j.checkParties(c); err != nil {
		return nil, err
	}
	if b.user, err = readUser(c); err != nil {
		return nil, err
	}
	name := j.Claim
	if name == "" {
		name = defaultClaim
	}
	if b.channels, err = readGranted(c, name); err != nil {
		return nil, err
	}
	return &b, nil
}

// readTimes enforces exp and nbf (RFC 7519 sections 4.1.4 and 4.1.5), and
// returns from when on the token is not valid. One that is accepted although
// its time is over, since clocks differ, is valid until that excuse is used up.
func (j *JWT) readTimes(c claims, now time.Time) (expires time.Time, err error) {
	expires, given, err := c.date("exp")
	if err != nil {
		return time.Time{}, err
	}
	if given && !now.Before(expires) {
		end := expires
		expires = expires.Add(j.leeway())
		if !now.Before(expires) {
			return time.Time{}, invalidToken("the token expired at %s; get a new one", formatDate(end))
		}
	}
	begin, given, err := c.date("nbf")
	if err != nil {
		return time.Time{}, err
	}
	if given && now.Add(j.leeway()).Before(begin) {
		return time.Time{}, invalidToken("the token is not valid before %s; is a clock wrong?", formatDate(begin))
	}
	return expires, nil
}

func formatDate(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// checkParties checks by whom the token is and for whom. A name that is
// configured must be there: a token without it is for everybody, and so for
// others than this endpoint.
func (j *JWT) checkParties(c claims) error {
	if j.Issuer != "" {
		issuer, ok := text(c["iss"])
		if !ok || issuer != j.Issuer {
			return invalidToken("the token's issuer (iss) is not the one that this endpoint trusts")
		}
	}
	if len(j.Audience) == 0 {
		return nil
	}
	audience, ok := texts(c["aud"])
	if one, isText := text(c["aud"]); isText {
		audience, ok = []string{one}, true
	}
	if !ok || !slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(j.Audience, a) }) {
		return invalidToken("the token is not for this endpoint; its audience (aud) must have one of the names that are configured here")
	}
	return nil
}

func readUser(c claims) (string, error) {
	raw, ok := c["sub"]
	if !ok {
		return "", nil
	}
	user, ok := text(raw)
	if !ok || len(user) > maxUser || strings.ContainsFunc(user, notInName) {
		return "", invalidToken("the token's claim sub must be a string of %d bytes at most, without control characters", maxUser)
	}
	return user, nil
}

// notInName reports characters that would make a name something else. Half a
// surrogate pair, which JSON can escape, is decoded as U+FFFD, whichever half it
// is: two users could become one.
func notInName(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }

// readGranted returns the channels and patterns of a claim. None is not the
// same as what cannot be read: a single name that is no list would be taken for
// a grant by its author, and missed.
func readGranted(c claims, name string) ([]string, error) {
	raw, found, ok := c.find(name)
	if !found && ok {
		return nil, nil
	}
	granted, isList := texts(raw)
	switch {
	case !ok || !isList:
		return nil, invalidToken("the token's claim %+.64q must be a list of strings, each a channel or a prefix pattern", name)
	case len(granted) > maxGranted:
		return nil, invalidToken("the token's claim %+.64q has %d entries; %d are possible, and a prefix pattern such as news-* stands for many",
			name, len(granted), maxGranted)
	}
	for i, pattern := range granted {
		if sse.ValidatePattern(pattern) != nil || strings.ContainsFunc(pattern, notInName) { // which would quote the token
			return nil, invalidToken("entry %d of the token's claim %+.64q is not a channel or prefix pattern", i+1, name)
		}
	}
	return granted, nil
}

// find returns the claim of a name, or else of the names within it that are
// separated by dots. It is not ok if what should have claims in it has none.
func (c claims) find(name string) (raw json.RawMessage, found, ok bool) {
	if raw, found := c[name]; found {
		return raw, true, true
	}
	outer, inner, nested := strings.Cut(name, ".")
	if !nested {
		return nil, false, true
	}
	around, found := c[outer]
	if !found {
		return nil, false, true
	}
	var within claims
	if json.Unmarshal(around, &within) != nil || within == nil {
		return nil, false, false
	}
	return within.find(inner)
}

// date returns a claim that is a NumericDate (RFC 7519 section 2).
func (c claims) date(name string) (at time.Time, given bool, err error) {
	raw, ok := c[name]
	if !ok {
		return time.Time{}, false, nil
	}
	var seconds float64
	if isNull(raw) || json.Unmarshal(raw, &seconds) != nil || seconds < 0 {
		return time.Time{}, false, invalidToken("the token's claim %s must be a number, of seconds since 1970", name)
	}
	whole, fraction := math.Modf(min(seconds, lastDate))
	return time.Unix(int64(whole), int64(fraction*1e9)), true, nil
}

// text returns a JSON string. What is absent is none.
func text(raw json.RawMessage) (s string, ok bool) {
	return s, !isNull(raw) && json.Unmarshal(raw, &s) == nil
}

// texts returns a JSON array of strings.
func texts(raw json.RawMessage) (list []string, ok bool) {
	var entries []json.RawMessage
	if isNull(raw) || json.Unmarshal(raw, &entries) != nil {
		return nil, false
	}
	list = make([]string, len(entries))
	for i, entry := range entries {
		if list[i], ok = text(entry); !ok {
			return nil, false
		}
	}
	return list, true
}

// isNull reports what would leave a Go variable as it is, without an error.
func isNull(raw json.RawMessage) bool {
	raw = bytes.TrimSpace(raw)
	return len(raw) == 0 || string(raw) == "null"
}
